# Calls every function in each way in which ruby-pg sends parameters (drivers.sql).
#
# Every call is undone.  What was answered goes into the table said: the text of the first
# column of the first row, or the SQLSTATE.
require 'json'
require 'pg'
require 'time'

CONNECTION = PG.connect
OIDS = { 'version' => 20, 'int' => 20, 'text' => 25, 'function' => 25, 'json' => 3802, 'uuid' => 2950, 'time' => 1184,
         'interval' => 1186, 'texts' => 1009, 'jsons' => 3807, 'uuids' => 2951, 'times' => 1185, 'bytea' => 17, 'byteas' => 1001 }.freeze
ELEMENTS = { 'texts' => 'text', 'jsons' => 'json', 'uuids' => 'uuid', 'times' => 'time', 'classes' => 'class', 'byteas' => 'bytea' }.freeze
SAID = []

# Encoders for Ruby's objects. A String stays without a type; an Array is sent as text[] or
# as an array of whatever its first element is.
def type_map(connection)
  PG::BasicTypeMapForQueries.new(connection)
end

# The value as Ruby has it.
def native(kind, value)
  case kind
  when 'int', 'version' then value.match?(/\A\d+\z/) ? Integer(value) : value
  when 'time' then Time.parse(value)
  when 'json' then JSON.parse(value).is_a?(Hash) ? JSON.parse(value) : value
  when 'bytea' then PG::BasicTypeMapForQueries::BinaryData.new([value.delete_prefix('\\x')].pack('H*'))
  when 'texts' then JSON.parse(value)
  # an Array of Strings would be a text[]
  when 'jsons', 'uuids', 'times', 'classes', 'byteas' then '{' + JSON.parse(value).map { |element| element.dump.gsub('\\u', '\\\\u') }.join(',') + '}'
  else value
  end
end

# With a type for each parameter; integers in binary form if binary is true.
def typed(kinds, values, binary)
  kinds.zip(values).map do |kind, value|
    oid = kind == 'version' && !value.match?(/\A\d+\z/) ? 25 : OIDS.fetch(kind, 0)
    next { value: [Integer(value)].pack('q>'), type: oid, format: 1 } if binary && oid == 20
    next { value: [value.delete('-')].pack('H*'), type: oid, format: 1 } if binary && oid == 2950
    next { value: "\x01#{value}", type: oid, format: 1 } if binary && oid == 3802
    next { value: value, type: oid, format: 1 } if binary && oid == 25
    next { value: [value.delete_prefix('\\x')].pack('H*'), type: oid, format: 1 } if binary && oid == 17

    { value: value, type: oid }
  end
end

def ask(id, way)
  CONNECTION.exec('BEGIN')
  answer = begin
    result = yield
    result.ntuples.zero? ? nil : result.getvalue(0, 0)
  rescue PG::Error => e
    e.result.error_field(PG::PG_DIAG_SQLSTATE)
  end
  CONNECTION.exec('ROLLBACK')
  SAID << ['ruby', way, id, answer]
end

def prepared(id, sql, way, parameters, map = nil)
  name = "#{way} #{id}"
  CONNECTION.prepare(name, sql)
  ["#{way} prepared", "#{way} prepared again"].each do |again|
    ask(id, again) { CONNECTION.exec_prepared(name, parameters, 0, map || PG::TypeMapAllStrings.new) }
  end
rescue PG::Error => e
  CONNECTION.exec('ROLLBACK')
  SAID << ['ruby', "#{way} prepared", id, e.result.error_field(PG::PG_DIAG_SQLSTATE)]
end

decoder = PG::TextDecoder::Array.new
map = type_map(CONNECTION)
calls = CONNECTION.exec('SELECT id, variant, sql, kinds, "values", natives(kinds, "values") FROM calls ORDER BY id').to_a
calls.each do |call|
  id, sql = call.values_at('id', 'sql')
  kinds, values, natives = call.values_at('kinds', 'values', 'natives').map { |array| decoder.decode(array) }
  if call['variant'] == 'literal'
    ask(id, 'simple') { CONNECTION.exec(sql) }
    next
  end
  ask(id, 'untyped') { CONNECTION.exec_params(sql, values) }
  prepared(id, sql, 'untyped', values)
  next if call['variant'] != 'plain'

  objects = kinds.zip(natives).map { |kind, value| native(kind, value) }
  ask(id, 'native') { CONNECTION.exec_params(sql, objects, 0, map) }
  ask(id, 'native, results binary') { CONNECTION.exec_params(sql, objects, 1, map) }
  prepared(id, sql, 'native', objects, map)
  next unless (%w[class classes role schema] & kinds).empty?

  ask(id, 'typed') { CONNECTION.exec_params(sql, typed(kinds, values, false)) }
  ask(id, 'typed, binary') { CONNECTION.exec_params(sql, typed(kinds, values, true)) }
end

# What is ruby-pg's own: what it is, what is answered, and what must be.
def alone(what, is, sql, parameters = [], map = nil)
  ask(what, what) { map ? CONNECTION.exec_params(sql, parameters, 0, map) : CONNECTION.exec_params(sql, parameters) }
  _, _, _, answer = SAID.pop
  CONNECTION.exec_params("INSERT INTO said_alone VALUES ('ruby', $1, $2, $3)", [what, answer, is])
end

batch = "SELECT version FROM es_append_batch('a-1', $1, $2::jsonb)"
alone('an Array as jsonb', '42846', batch, [4, [{ 'type' => 'a' }]], map)
alone('an Array as a text', '5', batch, [4, JSON.generate([{ 'type' => 'a' }])], map)
alone('SELECT f()', 't', "SELECT es_append('a-1', 4, 'a')::text ~ '^\\(5,\\d+\\)$'")
alone('SELECT FROM f()', '5', "SELECT * FROM es_append('a-1', 4, 'a')")
{ 'text' => [0, PG::BasicTypeMapForResults], 'binary' => [1, PG::BasicTypeMapForResults] }.each do |form, (number, results)|
  CONNECTION.exec('BEGIN')
  events = CONNECTION.exec_params("SELECT body, tags FROM es_poll('bytes', 'c')", [], number)
  events.type_map = results.new(CONNECTION)
  answer = events.getvalue(0, 0) == "\x00\xFF\\'".b && (number == 1 || events.getvalue(0, 1) == ['b', 'with, comma'])
  CONNECTION.exec('ROLLBACK')
  CONNECTION.exec_params("INSERT INTO said_alone VALUES ('ruby', $1, $2, 'true')", ["es_poll, #{form} results", answer.to_s])
end
SAID.each { |row| CONNECTION.exec_params('INSERT INTO said VALUES ($1, $2, $3, $4)', row) }
