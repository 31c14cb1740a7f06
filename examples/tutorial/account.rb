# Bank accounts in an event store, with the driver pg: doc/tutorial/ruby.md.
require 'json'
require 'pg'
require 'securerandom'

def connect
  db = PG.connect
  types = PG::BasicTypeMapForResults.new(db)
  types.default_type_map = PG::TypeMapAllStrings.new # such as uuid
  db.type_map_for_results = types
  yield db
ensure
  db&.close
end

# Appends one event. Returns its version and position.
def append(db, stream, expected, type, data, id)
  db.exec_params('SELECT version, position FROM es_append($1, $2, $3, $4, id => $5)',
                 [stream, expected, type, JSON.generate(data), id]).first
end

def conflict?(error)
  error.result&.error_field(PG::PG_DIAG_SQLSTATE) == 'ES001'
end

def open_account(db)
  id = SecureRandom.uuid
  puts "opened, version #{append(db, 'account-1', 'none', 'opened', { owner: 'Ann' }, id)['version']}"
  puts "opened again, version #{append(db, 'account-1', 'none', 'opened', { owner: 'Ann' }, id)['version']}"
  append(db, 'account-1', 1, 'deposited', { amount: 100 }, SecureRandom.uuid)
  append(db, 'account-1', 1, 'deposited', { amount: 100 }, SecureRandom.uuid)
rescue PG::ServerError => e
  raise unless conflict?(e)

  puts "conflict: #{e.result.error_field(PG::PG_DIAG_MESSAGE_PRIMARY)}"
end

def load_events(db, stream)
  db.exec_params('SELECT version, id, type, data FROM es_load($1)', [stream]).to_a
end

def fold(events)
  events.sum do |event|
    case event['type']
    when 'deposited' then event['data']['amount']
    when 'withdrawn' then -event['data']['amount']
    else 0
    end
  end
end

# The account has too little money.
class Refused < StandardError; end

# Loads, decides and appends, again if another writer was faster. Returns the version.
def withdraw(db, stream, amount, command_id)
  10.times do
    events = load_events(db, stream)
    done = events.find { |event| event['id'] == command_id } # by an earlier attempt, whose answer was lost
    return done['version'] if done

    raise Refused, "only #{fold(events)} left" if fold(events) < amount

    return append(db, stream, events.last['version'], 'withdrawn', { amount: amount }, command_id)['version']
  rescue PG::ServerError => e
    raise unless conflict?(e)
  end
  raise "too many writers of #{stream}"
end

def withdraw_at_once
  connect { |db| withdraw(db, 'account-1', 30, SecureRandom.uuid) }
  'done'
rescue Refused => e
  e.message
end

def withdraw_often(db)
  answers = Array.new(4) { Thread.new { withdraw_at_once } }.map(&:value)
  puts "four withdrawals of 30: #{answers.sort.join(', ')}"
  command_id = SecureRandom.uuid
  puts "withdrawn, version #{withdraw(db, 'account-1', 5, command_id)}"
  puts "withdrawn again, version #{withdraw(db, 'account-1', 5, command_id)}"
  events = load_events(db, 'account-1')
  puts "balance #{fold(events)} at version #{events.last['version']}"
end

def read_own_write(db)
  position = append(db, 'account-1', 6, 'deposited', { amount: 20 }, SecureRandom.uuid)['position']
  db.exec_params("SELECT es_wait('balance', $1)", [position])
  row = db.exec("SELECT amount FROM balance WHERE account = 'account-1'").first
  puts "read model: #{row['amount']}"
end

# Handles events until there are no more.
def consume(name, handled)
  connect do |db|
    loop do
      events = db.exec_params("SELECT * FROM es_poll('mails', consumer => $1, wait => '1s')", [name]).to_a
      break if events.empty?

      events.each { |event| handled << event } # here the mail would be sent
      db.exec_params("SELECT es_ack('mails', $1)", [events.first['token']])
    end
  end
end

def consume_side_by_side(db)
  events = [{ type: 'opened', data: { owner: 'Bob' } }, { type: 'deposited', data: { amount: 7 } }]
  %w[account-2 account-3 account-4].each do |stream|
    db.exec_params("SELECT es_append_batch($1, 'none', $2::jsonb)", [stream, JSON.generate(events)])
  end
  handled = Queue.new
  %w[mails-1 mails-2].map { |name| Thread.new { consume(name, handled) } }.each(&:join)
  Array.new(handled.size) { handled.pop }.group_by { |event| event['stream'] }.sort.each do |stream, its_events|
    puts "#{stream}: #{its_events.map { |event| event['version'] }.join(' ')}"
  end
end

def listen(db)
  connect do |listener|
    listener.exec('LISTEN "es_events:account"')
    horizon = db.exec('SELECT es_horizon()').getvalue(0, 0)
    append(db, 'account-4', 2, 'withdrawn', { amount: 7 }, SecureRandom.uuid)
    loop do
      listener.wait_for_notify
      event = db.exec_params("SELECT stream, type FROM es_read_category('account', $1)", [horizon]).first
      next unless event

      puts "woken: #{event['stream']} #{event['type']}"
      break
    end
  end
end

connect do |db|
  open_account(db)
  withdraw_often(db)
  read_own_write(db)
  consume_side_by_side(db)
  listen(db)
end
