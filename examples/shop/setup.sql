CREATE EXTENSION eventstore;

-- a read model: what is in each cart
CREATE TABLE cart_line (cart text, product text, count int NOT NULL, PRIMARY KEY (cart, product));
SELECT es_create_projection('cart_line', types => '{taken}', tables => '{cart_line}', query => $$
    INSERT INTO cart_line
    SELECT stream, data->>'product', sum((data->>'count')::int) FROM new_events GROUP BY 1, 2
        ON CONFLICT (cart, product) DO UPDATE SET count = cart_line.count + excluded.count $$);

-- what is to be mailed
SELECT es_create_subscription('mails', types => '{registered,paid}', max_attempts => 3);

-- a message of the payment service becomes an event of its cart, which must exist
CREATE FUNCTION on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
    SELECT p->>'id', now(), 'paid', '1', p->>'cart', 'exists', ARRAY[p->>'cart']
      FROM (SELECT payload::jsonb AS p) AS message $$;
