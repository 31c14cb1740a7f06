require 'json'
require 'pg'

def connected
  db = PG.connect
  yield db
ensure
  db&.close
end

RSpec.describe 'account' do
  # A transaction that leaves nothing; with :emptied an empty store, for a test that commits.
  around do |example|
    first, last = example.metadata[:emptied] ? ['SELECT es_reset()'] * 2 : %w[BEGIN ROLLBACK]
    connected do |db|
      @db = db
      db.exec(first)
      example.run
      db.exec(last)
    end
  end

  def values(sql, *parameters, db: @db)
    db.exec_params(sql, parameters).values
  end

  def append(expected, type, data = {}, db: @db)
    values("SELECT position FROM es_append('account-1', $1, $2, $3)", expected, type, JSON.generate(data), db: db)[0][0]
  end

  def withdraw(amount)
    given = [{ type: 'opened' }, { type: 'deposited', data: { amount: 50 } }]
    values("SELECT events->0->'data'->>'amount', error FROM es_test_decider('account.es_reduce', 'account.withdraw',
              given => $1, command => $2)", JSON.generate(given), JSON.generate({ amount: amount }))[0]
  end

  it 'withdraws only what is there' do
    expect(withdraw(20)).to eq ['20', nil]
    expect(withdraw(51)).to eq [nil, 'only 50 left']
  end

  it 'shows the balance' do
    append('none', 'opened')
    position = append('1', 'deposited', { amount: 50 })
    expect(values("SELECT es_run_projections('balance')")).to eq [['2']]
    expect(values("SELECT es_wait('balance', $1)", position)).to eq [['t']]
    expect(values('SELECT account, amount FROM balance')).to eq [%w[account-1 50]]
    expect(values("SELECT type FROM es_poll('mails')")).to eq [['opened'], ['deposited']]
  end

  it 'refuses the second of two', :emptied do
    expect(append('none', 'opened')).to eq '1'
    position = connected { |other| append('1', 'deposited', { amount: 7 }, db: other) }
    expect { append('1', 'deposited', { amount: 5 }) }.to raise_error(PG::Error) { |e|
      expect(e.result.error_field(PG::Result::PG_DIAG_SQLSTATE)).to eq 'ES001'
    }
    expect(values("SELECT es_wait('balance', $1)", position)).to eq [['t']] # by a worker
    expect(values('SELECT amount FROM balance')).to eq [['7']]
  end
end
