"""LLM teachers and their controls. Importing this package registers the built-in ones; no LLM library is loaded."""

from recbole_alkd.teacher import api as api
from recbole_alkd.teacher import local as local
from recbole_alkd.teacher import null as null
from recbole_alkd.teacher import recommender as recommender
from recbole_alkd.teacher import replay as replay
from recbole_alkd.teacher import text as text
