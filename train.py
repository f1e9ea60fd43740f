"""Train: ``python train.py --config-name _15_FI1_nested model_path=... trainer.n_gpus_per_node=2``.

Any key of ``config/`` can be given as ``key=value``. The configuration is checked as a whole and the
resolved plan printed before anything starts; ``trainer.plan_only=true`` stops there. ``-m seed.train=1,2,3`` makes a run of
each combination, one after another.
"""

from __future__ import annotations

import argparse
import logging
import sys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-name", "-cn", default="_0_laptop", help="experiment in config/, without .yaml")
    parser.add_argument("--multirun", "-m", action="store_true", help="a value with commas is a run each (Hydra's sweeps)")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from verl.utils.secrets import MaskingFilter

    for handler in logging.getLogger().handlers:
        handler.addFilter(MaskingFilter())

    from ragen.trainer.config import compose, validate_config
    from ragen.trainer.memory import plan_run
    from verl.utils.config_check import ConfigError

    try:
        if args.multirun:
            from ragen.trainer.sweep import run_all

            return run_all([sys.executable, __file__], args.config_name, args.overrides)
        config = compose(args.config_name, args.overrides)
        if config.trainer.get("plan_only"):
            print(plan_run(config))
            return 0
        plan = validate_config(config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    for warning in plan.warnings:
        logging.warning(warning)
    print(plan, flush=True)

    from ragen.trainer.run import run  # torch and Ray are imported only now

    return run(config, plan)


if __name__ == "__main__":
    raise SystemExit(main())
