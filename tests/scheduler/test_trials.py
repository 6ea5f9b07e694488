"""What a trial is told to train is a whole config, whatever proposed it."""

from __future__ import annotations

import json
from pathlib import Path

from simulated_driver import Driver

from study.config.task import TrialConfig
from study.core.names import BASELINE, CONFIRM, REFERENCE, SEARCH


def test_the_config_of_each_trial_is_whole_and_valid(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.run()
    trials = driver.ledger.state.trials.values()
    assert {trial.stage for trial in trials} == {BASELINE, REFERENCE, SEARCH, CONFIRM}
    for trial in trials:
        config = TrialConfig.model_validate(trial.config)
        plain = json.loads(json.dumps(config.model_dump()))
        assert plain == trial.config, "every default is written out"
        assert (config.task, config.seed) == (driver.task, trial.seed)
        if trial.stage == SEARCH:
            resolved = driver.space.resolve(trial.params or {})
            assert (config.loss, config.optimizer) == (resolved.loss, resolved.optimizer)
