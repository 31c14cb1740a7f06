import psycopg
from psycopg.types.json import Jsonb

db = psycopg.connect(autocommit=True)
# README
print([event[1] for event in events])
