CREATE EXTENSION eventstore;

-- a read model, and the projection that keeps it up to date
CREATE TABLE balance (account text PRIMARY KEY, amount bigint NOT NULL);
SELECT es_create_projection('balance', category => 'account', tables => '{balance}', query => $$
    INSERT INTO balance
    SELECT stream, sum(CASE type WHEN 'deposited' THEN (data->>'amount')::bigint
                                 WHEN 'withdrawn' THEN -(data->>'amount')::bigint ELSE 0 END)
      FROM new_events GROUP BY stream
        ON CONFLICT (account) DO UPDATE SET amount = balance.amount + excluded.amount $$);

-- what is to be mailed about accounts: up to four consumers work side by side
SELECT es_create_subscription('mails', category => 'account', partitions => 4);
