from recbole.quick_start import load_data_and_model, objective_function
from recbole.quick_start import run_recbole as run_recbole_alkd
