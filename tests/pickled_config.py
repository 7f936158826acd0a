"""``python -m tests.pickled_config FILE ARGUMENTS``: the configuration of ``fairseq-train ARGUMENTS``."""

import pickle
import sys

from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

if __name__ == "__main__":
    arguments = options.parse_args_and_arch(options.get_training_parser(), sys.argv[2:])
    with open(sys.argv[1], "wb") as file:
        pickle.dump(convert_namespace_to_omegaconf(arguments), file)
