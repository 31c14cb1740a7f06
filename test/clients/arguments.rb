# Names functions by parameters of ruby-pg, in prepared statements.
require 'pg'

CONNECTION = PG.connect

def call(function, sql, *parameters)
  prepared = CONNECTION.exec_params('SELECT FROM pg_prepared_statements WHERE name = $1', [function])
  CONNECTION.prepare(function, sql) if prepared.ntuples.zero?
  row = CONNECTION.exec_prepared(function, parameters).values.first
  puts [function, *row.reject { |value| value == '' }].join(' ')
end

%w[1 2].each do |n|
  call('es_execute', 'SELECT version, events FROM es_execute($1, $2, $3, $4)', 'c-1', 'decide', %({"n": #{n}}), 'es_merge')
  call('es_state', 'SELECT state::text, version FROM es_state($1, $2)', 'c-1', 'public.es_merge')
  call('es_history', 'SELECT count(*) FROM es_history($1, $2)', 'c-1', 'es_last(jsonb, es_recorded_event)')
  call('es_snapshot', 'SELECT es_snapshot($1, $2::text)', 'c-1', 'es_merge')
  call('es_receive', 'SELECT es_receive($1, $2, $3, $4)', 't', 'g', n, 'receive')
  call('es_define_upcaster', 'SELECT es_define_upcaster($1, 1, $2)', 'counted', 'upcast')
end
call('es_create_projection', 'SELECT es_create_projection($1, $2)', 'p', 'handle')
begin
  call('refused', 'SELECT es_state($1, $2)', 'c-1', 'nothing')
rescue PG::Error => e
  puts "refused #{e.result.error_field(PG::PG_DIAG_SQLSTATE)}"
end
