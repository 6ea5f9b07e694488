# Sourced by .ci/run and .ci/long. Clones the last commit into a temporary folder, which is removed
# at exit, and goes there. Leaves the README's two commands in `commands`; `step` shows and runs one.
# Needs python3 (3.11 or newer) with venv, and git.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python3 --version
git diff --quiet HEAD || echo "note: changes that are not committed are not checked"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet . "$work/clone"
[ ! -d ../shared ] || ln -s "$(realpath ../shared)" "$work/shared" # data for a few tests, where there are any
cd "$work/clone"

# The lines of the README that begin with `python3 -m venv`.
mapfile -t commands < <(grep '^python3 -m venv ' README.md)
if [ "${#commands[@]}" -ne 2 ]; then
  echo "README.md must hold two commands that begin with 'python3 -m venv', but has ${#commands[@]}"
  exit 1
fi

step() {
  printf '\n== %s\n' "$1"
  bash -o pipefail -c "$1"
}
