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

setup(
    name="recbole-alkd",
    version=version,
    description="ALKDRec for RecBole: distil an LLM into a small session recommender from few, actively chosen sessions",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10,<3.12",
    packages=[
        *find_packages(include=["recbole_alkd", "recbole_alkd.*"]),
        "recbole_alkd.properties",
        *(f"recbole_alkd.properties.{name}" for name in property_folders),
    ],
    package_dir={"recbole_alkd": "recbole_alkd", "recbole_alkd.properties": "properties"},
    package_data={"recbole_alkd.properties": ["*.yaml"], **{f"recbole_alkd.properties.{n}": ["*.yaml"] for n in property_folders}},
    py_modules=["run_recbole_alkd"],
    entry_points={"console_scripts": ["recbole-alkd=recbole_alkd.cli:main"]},
    install_requires=[
        "recbole==1.2.1",
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
        "ray": ["ray", "setuptools<81"],  # ray 2.6.3, which RecBole pins, imports pkg_resources
        "dev": [
            "pytest", "pytest-timeout", "hypothesis", "ruff", "mypy", "types-PyYAML", "build",
            "fastapi", "uvicorn",  # with these `transformers serve` runs, one of the two real servers of the slow tests
            "xllamacpp; platform_system == 'Linux' and platform_machine == 'x86_64'",  # the other one
        ],
    },
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
