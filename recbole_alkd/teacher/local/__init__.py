"""Teachers on this machine: a causal LM, with LoRA if asked for."""

from recbole_alkd.teacher.local import teacher as teacher
from recbole_alkd.teacher.local.teacher import LocalTeacher as LocalTeacher
