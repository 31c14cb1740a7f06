# A consumer of a subscription in Ruby, with the driver pg.
#
#     ruby consumer.rb SUBSCRIPTION [NAME]
#
# It connects by the usual variables, such as PGHOST, PGDATABASE and PGUSER. One
# running program at a time may use a NAME. If it is started again under its NAME,
# it continues at once with the events that it had in flight. Without a NAME it
# waits until their lease expires.
#
# It polls without waiting, and LISTEN wakes it. This is the way for a program that
# also waits for other notifications. Only an append wakes a consumer, but not a
# retry that is due or a lease that has expired. So it also looks every second.
# es_poll(wait => ...), as in consumer.py, needs neither.
require 'pg'
require 'set'

SUBSCRIPTION, NAME = ARGV
# Other errors of the server do not go away by connecting again.
LOST = [PG::ConnectionBad, PG::UnableToSend, PG::ConnectionException,
        PG::InsufficientResources, PG::OperatorIntervention].freeze

# Does the work. It may run twice for an event, so it should be idempotent.
def handle(connection, event)
  connection.exec_params(
    'INSERT INTO handled (consumer, position, stream, version, attempt) VALUES ($1, $2, $3, $4, $5)',
    [NAME, *event.values_at('position', 'stream', 'version', 'attempt')])
end

def deliver(connection, events)
  failed = Set.new
  token = events.first['token']
  events.each do |event|
    next if failed.include?(event['stream']) # it comes again, after the one that failed

    begin
      handle(connection, event)
    rescue StandardError => e
      # If the connection is lost this fails, too, and nothing is settled.
      connection.exec_params('SELECT es_nack($1, $2, $3, $4)', [SUBSCRIPTION, token, event['position'], e.message])
      failed << event['stream']
    end
  end
  connection.exec_params('SELECT es_ack($1, $2)', [SUBSCRIPTION, token])
rescue PG::ServerError => e
  raise unless e.result&.error_field(PG::PG_DIAG_SQLSTATE) == 'ES006'

  warn 'the lease expired, and another consumer has these events now'
end

def consume(connection)
  connection.exec('LISTEN es_events')
  begin
    connection.exec_params('SELECT es_create_subscription($1, partitions => 4, lease => $2)',
                           [SUBSCRIPTION, ENV.fetch('LEASE', '30s')])
  rescue PG::DuplicateObject
    # it is there
  end
  until $stopping
    events = connection.exec_params('SELECT * FROM es_poll($1, consumer => $2)', [SUBSCRIPTION, NAME]).to_a
    events.empty? ? connection.wait_for_notify(1) : deliver(connection, events)
  end
end

# What is in flight is finished first.
$stopping = false
trap('TERM') { $stopping = true }

pause = 0.1
until $stopping
  begin
    connection = PG.connect
    pause = 0.1
    consume(connection)
  rescue *LOST => e
    warn "connection lost, next try in #{pause} s: #{e.message}"
    sleep pause
    pause = [pause * 2, 10].min
  ensure
    connection&.close unless connection&.finished?
  end
end
