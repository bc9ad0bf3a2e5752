"""Teachers behind an OpenAI-compatible server."""

from recbole_alkd.teacher.api import teacher as teacher
from recbole_alkd.teacher.api.teacher import ApiTeacher as ApiTeacher
