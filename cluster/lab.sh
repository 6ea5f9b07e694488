#!/bin/bash
# A cluster of boxes that you reach by ssh: cluster/lab.sh up HEAD BOX BOX ..., later cluster/lab.sh
# down HEAD BOX .... Every box has this folder with its .venv, the data and the studies under the same
# path, from a file server for instance. Ray's own ports are guarded by its token, which ssh carries to
# each box; let a firewall keep all but ssh from other networks. A box that comes late: add HEAD BOX.
set -euo pipefail
usage="usage: lab.sh up|add|down HEAD [BOX ...]"
do=${1:?$usage} head=${2:?$usage}
boxes=("${@:3}")
here=$(cd "$(dirname "$0")/.." && pwd)
token=$HOME/.ray/auth_token
port=6379

on() {  # on BOX COMMAND: run it there, in this folder
  ssh -o BatchMode=yes "$1" "cd '$here' && export PATH='$here/.venv/bin':\$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 && $2"
}
give_token() {
  ssh -o BatchMode=yes "$1" 'umask 077 && mkdir -p ~/.ray && cat > ~/.ray/auth_token' < "$token"
}
join() {
  give_token "$1"
  on "$1" "ray start --address=$head:$port"
}

case $do in
  up)
    [ -s "$token" ] || "$here/.venv/bin/ray" get-auth-token --generate > /dev/null
    give_token "$head"
    on "$head" "ray start --head --port=$port --dashboard-host=127.0.0.1"
    for box in "${boxes[@]}"; do join "$box"; done
    echo "on $head: .venv/bin/python -m study.run --task DIR/task.yaml --device gpu"
    ;;
  add) for box in "${boxes[@]}"; do join "$box"; done ;;
  down) for box in "${boxes[@]}" "$head"; do on "$box" "ray stop"; done ;;
  *) echo "$usage" >&2; exit 2 ;;
esac
