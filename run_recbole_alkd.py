"""Run ALKDRec, or any RecBole model, from the command line, the way RecBole's ``run_recbole.py`` does.

python run_recbole_alkd.py --model=ALKDRec --dataset=ml-100k [--config_files "a.yaml b.yaml"]
[--any_key=value]
"""

from recbole_alkd.cli import run_main

if __name__ == "__main__":
    run_main()
