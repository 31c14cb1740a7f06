"""Names functions by parameters of psycopg 3, in prepared statements."""
import psycopg

connection = psycopg.connect(autocommit=True)


def call(function, sql, *parameters):
    row = connection.execute(sql, parameters, prepare=True).fetchone()
    print(" ".join([function, *(str(value) for value in row if value != "")]))


for n in "12":
    call("es_execute", "SELECT version, events FROM es_execute(%s, %s, %s, %s)", "c-1", "decide", '{"n": %s}' % n, "es_merge")
    call("es_state", "SELECT state::text, version FROM es_state(%s, %s)", "c-1", "public.es_merge")
    call("es_history", "SELECT count(*) FROM es_history(%s, %s)", "c-1", "es_last(jsonb, es_recorded_event)")
    call("es_snapshot", "SELECT es_snapshot(%s, %s::text)", "c-1", "es_merge")
    call("es_receive", "SELECT es_receive(%s, %s, %s, %s)", "t", "g", n, "receive")
    call("es_define_upcaster", "SELECT es_define_upcaster(%s, 1, %s)", "counted", "upcast")
call("es_create_projection", "SELECT es_create_projection(%s, %s)", "p", "handle")
try:
    call("es_state", "SELECT es_state(%s, %s)", "c-1", "nothing")
except psycopg.Error as error:
    print("refused", error.sqlstate)
