"""Packaging. The YAML files live in ``properties/`` and are installed as ``recbole_alkd/properties``."""

from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
property_folders = sorted(p.name for p in (here / "properties").iterdir() if p.is_dir())
version = next(
    line.split('"')[1]
    for line in (here / "recbole_alkd" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

# RecBole 1.2.1 asks for ray<=2.6.3, which has no wheel for Python 3.12 and later, and needs it for one import
# that recbole_alkd serves itself (compat.py). There RecBole is installed without its requirements
# (`pip install --no-deps recbole==1.2.1`), and these stand in for them.
recbole_needs = [
    "colorama==0.4.4",
    "colorlog==4.7.2",
    "plotly>=4.0.0",
    "psutil>=5.9.0",
    "scikit-learn",
    "scipy",
    "tabulate>=0.8.10",
    "tensorboard",
    "texttable>=0.9.0",
    "thop",
    "tqdm",
]

setup(
    name="recbole-alkd",
    version=version,
    description=(
        "ALKDRec for RecBole: distil an LLM into a small session recommender from few, "
        "actively chosen sessions"
    ),
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10,<3.15",
    packages=[
        *find_packages(include=["recbole_alkd", "recbole_alkd.*"]),
        "recbole_alkd.properties",
        *(f"recbole_alkd.properties.{name}" for name in property_folders),
    ],
    package_dir={"recbole_alkd": "recbole_alkd", "recbole_alkd.properties": "properties"},
    package_data={
        "recbole_alkd": ["py.typed"],
        "recbole_alkd.serving.service": ["page.html"],
        "recbole_alkd.properties": ["*.yaml"],
        **{f"recbole_alkd.properties.{n}": ["*.yaml"] for n in property_folders},
    },
    py_modules=["run_recbole_alkd"],
    entry_points={"console_scripts": ["recbole-alkd=recbole_alkd.cli:main"]},
    install_requires=[
        "recbole==1.2.1; python_version < '3.12'",
        *(f"{need}; python_version >= '3.12'" for need in recbole_needs),
        "torch>=2.6",
        "pandas<3",
        "numpy",
        "pyyaml",
        "setuptools",
        "transformers",
        "peft",
    ],
    extras_require={
        "local": ["accelerate", "gguf", "safetensors"],
        "api": ["openai"],
        "bench": ["matplotlib"],
        # what a service needs; with these and `pip install --no-deps recbole-alkd` there is no torch and
        # no RecBole
        "serve": [
            "numpy", "safetensors", "onnxruntime", "msgspec", "uvicorn", "httptools", "prometheus-client",
            "uvloop; platform_system != 'Windows'",
        ],
        "mcp": ["mcp>=2"],
        "tune": ["optuna"],
        "scale": ["pyarrow"],  # Parquet for `recbole-alkd count`
        "docs": ["mkdocs-material>=9.5,<10"],
        "onnx": ["onnx", "onnxruntime"],
        # RecBole's own pin keeps Python 3.10 and 3.11 at ray 2.6.3
        "ray": ["ray>=2.49; python_version >= '3.12'"],
        "dev": [
            "pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "ruff", "mypy", "types-PyYAML", "build",
            # with these `transformers serve` runs, one of the two real servers of the slow tests
            "fastapi", "uvicorn",
            "mcp>=2", "optuna", "hyperopt>=0.3", "pyarrow",
            "schemathesis",  # asks the service what its own document allows, and what it does not
            "xllamacpp; platform_system == 'Linux' and platform_machine == 'x86_64'",  # the other one
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
