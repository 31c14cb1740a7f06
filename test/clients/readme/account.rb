require 'pg'

db = PG.connect
# README
puts "['#{events.map { |event| event['type'] }.join("', '")}']"
