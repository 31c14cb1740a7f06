-- Roles of the tests: that of the gateway, which has no right of its own, and those that tokens name.
CREATE ROLE gateway LOGIN NOINHERIT;
CREATE ROLE reader;
CREATE ROLE writer;
CREATE ROLE appender;
CREATE ROLE operator;
CREATE ROLE retention;
CREATE ROLE nobody;
CREATE ROLE visitor;
CREATE ROLE stranger;
GRANT reader, writer, appender, operator, retention, nobody, visitor TO gateway;
