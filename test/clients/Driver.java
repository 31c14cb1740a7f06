// Calls every function in each way in which JDBC sends parameters (drivers.sql).
//
// Every call is undone. What was answered goes into the table said: the text of the first
// column of the first row, or the SQLSTATE.
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import javax.net.SocketFactory;
import org.postgresql.util.PGInterval;
import org.postgresql.util.PGobject;

public class Driver {
    /** The driver knows TCP only; this leads it to PGHOST's Unix socket. */
    public static class UnixSocketFactory extends SocketFactory {
        public Socket createSocket() {
            return new UnixSocket();
        }

        public Socket createSocket(String host, int port) {
            return createSocket();
        }

        public Socket createSocket(String host, int port, java.net.InetAddress local, int localPort) {
            return createSocket();
        }

        public Socket createSocket(java.net.InetAddress host, int port) {
            return createSocket();
        }

        public Socket createSocket(java.net.InetAddress host, int port, java.net.InetAddress local, int localPort) {
            return createSocket();
        }
    }

    static class UnixSocket extends Socket {
        private SocketChannel channel;

        public void connect(SocketAddress address, int timeout) throws IOException {
            channel = SocketChannel.open(StandardProtocolFamily.UNIX);
            channel.connect(UnixDomainSocketAddress.of(
                System.getenv("PGHOST") + "/.s.PGSQL." + System.getenv().getOrDefault("PGPORT", "5432")));
        }

        public InputStream getInputStream() {
            return Channels.newInputStream(channel);
        }

        public OutputStream getOutputStream() {
            return Channels.newOutputStream(channel);
        }

        public void setTcpNoDelay(boolean on) {}

        public void setSoTimeout(int timeout) {}

        public int getSoTimeout() {
            return 0;
        }

        public void setKeepAlive(boolean on) {}

        public void close() throws IOException {
            channel.close();
        }

        public boolean isClosed() {
            return !channel.isOpen();
        }
    }

    static final Map<String, String> ELEMENTS =
        Map.of("texts", "text", "jsons", "jsonb", "uuids", "uuid", "times", "timestamptz", "classes", "regclass", "byteas", "bytea");
    static final Map<String, String> NAMED =
        Map.of("json", "jsonb", "class", "regclass", "schema", "regnamespace", "role", "regrole");

    static final String SIMPLE = ", simple protocol";

    record Call(int id, String variant, String sql, String[] kinds, String[] values) {}

    record Said(String way, int id, String answer) {}

    interface Binder {
        void bind(PreparedStatement statement, int place, String kind, String value) throws SQLException;
    }

    static final List<Said> said = new ArrayList<>();

    /** As a string without a type. */
    static void untyped(PreparedStatement statement, int place, String kind, String value) throws SQLException {
        statement.setObject(place, value, Types.OTHER);
    }

    /** As Java has it: setLong, setString (a varchar), UUID, OffsetDateTime, PGobject, arrays. */
    static void nativeObject(PreparedStatement statement, int place, String kind, String value) throws SQLException {
        if (isNumber(kind, value)) {
            statement.setLong(place, Long.parseLong(value));
        } else if (kind.equals("uuid")) {
            statement.setObject(place, UUID.fromString(value));
        } else if (kind.equals("bytea")) {
            statement.setBytes(place, unhex(value));
        } else if (kind.equals("time")) {
            statement.setObject(place, OffsetDateTime.parse(value));
        } else if (kind.equals("interval")) {
            statement.setObject(place, new PGInterval(value.equals("0") ? "0 seconds" : value));
        } else if (NAMED.containsKey(kind)) {
            PGobject object = new PGobject();
            object.setType(NAMED.get(kind));
            object.setValue(value);
            statement.setObject(place, object);
        } else if (ELEMENTS.containsKey(kind)) {
            statement.setArray(place, statement.getConnection().createArrayOf(ELEMENTS.get(kind), elements(statement.getConnection(), kind, value)));
        } else {
            statement.setString(place, value);
        }
    }

    static void asInt(PreparedStatement statement, int place, String kind, String value) throws SQLException {
        if (isNumber(kind, value) && value.length() < 10) {
            statement.setInt(place, Integer.parseInt(value));
        } else {
            nativeObject(statement, place, kind, value);
        }
    }

    static void asShort(PreparedStatement statement, int place, String kind, String value) throws SQLException {
        if (isNumber(kind, value) && value.length() < 5) {
            statement.setShort(place, Short.parseShort(value));
        } else {
            nativeObject(statement, place, kind, value);
        }
    }

    static byte[] unhex(String value) {
        return HexFormat.of().parseHex(value.substring(2));
    }

    static boolean isNumber(String kind, String value) {
        return (kind.equals("int") || kind.equals("version")) && value.matches("\\d+");
    }

    static Object[] elements(Connection connection, String kind, String literal) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("SELECT ?::text[]")) {
            statement.setObject(1, literal, Types.OTHER);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                String[] texts = (String[]) rows.getArray(1).getArray();
                if (kind.equals("byteas")) {
                    byte[][] bodies = new byte[texts.length][];
                    for (int i = 0; i < texts.length; i++) {
                        bodies[i] = unhex(texts[i]);
                    }
                    return bodies;
                }
                if (!kind.equals("uuids")) {
                    return texts;
                }
                UUID[] uuids = new UUID[texts.length];
                for (int i = 0; i < texts.length; i++) {
                    uuids[i] = UUID.fromString(texts[i]);
                }
                return uuids;
            }
        }
    }

    /** Asks so many times with one statement, which the driver prepares when it likes to. */
    static void ask(Connection connection, Call call, String way, int times, Binder binder) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(call.sql.replaceAll("\\$\\d+", "?"))) {
            for (int time = 1; time <= times; time++) {
                // the driver begins a transaction before the first statement
                for (int i = 0; i < call.values.length; i++) {
                    binder.bind(statement, i + 1, call.kinds[i], call.values[i]);
                }
                String answer = null;
                try (ResultSet rows = statement.executeQuery()) {
                    answer = rows.next() ? rows.getString(1) : null;
                } catch (SQLException error) {
                    answer = error.getSQLState();
                }
                connection.rollback();
                said.add(new Said(way + (time > 1 ? " again" : ""), call.id, answer));
            }
        }
    }

    static void askSimple(Connection connection, Call call, String way) throws SQLException {
        String answer = null;
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(call.sql)) {
            answer = rows.next() ? rows.getString(1) : null;
        } catch (SQLException error) {
            answer = error.getSQLState();
        }
        connection.rollback();
        said.add(new Said(way, call.id, answer));
    }

    static Connection connect(String options) throws SQLException {
        Connection connection = DriverManager.getConnection("jdbc:postgresql:" + System.getenv("PGDATABASE")
            + "?socketFactory=" + UnixSocketFactory.class.getName() + "&user=" + System.getenv("PGUSER") + options);
        connection.setAutoCommit(false);
        return connection;
    }

    static List<Call> calls(Connection connection) throws SQLException {
        List<Call> calls = new ArrayList<>();
        try (ResultSet rows = connection.createStatement().executeQuery("SELECT id, variant, sql, kinds, \"values\" FROM calls ORDER BY id")) {
            while (rows.next()) {
                calls.add(new Call(rows.getInt(1), rows.getString(2), rows.getString(3),
                    (String[]) rows.getArray(4).getArray(), (String[]) rows.getArray(5).getArray()));
            }
        }
        connection.rollback();
        return calls;
    }

    static void askInEachWay(Connection connection, Call call, String mode, int times) throws SQLException {
        if (call.variant.equals("literal")) {
            askSimple(connection, call, "literal" + mode);
            return;
        }
        ask(connection, call, "untyped" + mode, times, Driver::untyped);
        // setBytes makes bad SQL there (see store)
        boolean isRefused = mode.equals(SIMPLE) && List.of(call.kinds).contains("bytea");
        if (!call.variant.equals("plain") || isRefused) {
            return;
        }
        ask(connection, call, "setLong, setString, setObject" + mode, times, Driver::nativeObject);
        ask(connection, call, "setInt" + mode, times, Driver::asInt);
        ask(connection, call, "setShort" + mode, times, Driver::asShort);
    }

    /** What is JDBC's own: what it is, what is answered, and what must be. */
    static void alone(Connection connection, String what, String is, String sql, Object... parameters) throws SQLException {
        String answer;
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < parameters.length; i++) {
                statement.setObject(i + 1, parameters[i]);
            }
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                answer = rows.getString(1);
            }
        } catch (SQLException error) {
            answer = error.getSQLState();
        }
        connection.rollback();
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO said_alone VALUES ('java', ?, ?, ?)")) {
            statement.setString(1, what);
            statement.setString(2, answer);
            statement.setString(3, is);
            statement.executeUpdate();
        }
        connection.commit();
    }

    /** Tags and body of an event, as getArray and getBytes return them; the driver reads both forms. */
    static void polled(String what, String options) throws SQLException {
        Connection connection = connect(options);
        String answer;
        try (PreparedStatement statement = connection.prepareStatement("SELECT tags, body FROM es_poll(?, ?)")) {
            statement.setString(1, "bytes");
            statement.setString(2, "c");
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                answer = String.join("|", (String[]) rows.getArray(1).getArray()) + " " + HexFormat.of().formatHex(rows.getBytes(2));
            }
        }
        connection.rollback();
        alone(connection, what, "b|with, comma 00ff5c27", "SELECT ?::text", answer);
        connection.close();
    }

    static void store() throws SQLException {
        Connection connection = connect("");
        alone(connection, "setString as jsonb", "42883", "SELECT version FROM es_append(?, ?, ?, ?)", "a-1", "4", "a", "{}");
        alone(connection, "setString as jsonb, cast", "5", "SELECT version FROM es_append(?, ?, ?, ?::jsonb)", "a-1", "4", "a", "{}");
        alone(connection, "setBigDecimal", "42883", "SELECT version FROM es_append(?, ?, ?)", "a-1", new java.math.BigDecimal(4), "a");
        alone(connection, "setString as regrole", "42883", "SELECT es_grant(?, ?)", "es_drivers_role", "reader");
        alone(connection, "setString as interval", "42883", "SELECT es_wait(?, ?, ?)", "p", 0L, "1 s");
        alone(connection, "SELECT f()", "t", "SELECT es_append(?, ?, ?)::text ~ '^\\(5,\\d+\\)$'", "a-1", 4, "a");
        alone(connection, "SELECT FROM f()", "5", "SELECT * FROM es_append(?, ?, ?)", "a-1", 4, "a");
        Connection simple = connect("&preferQueryMode=simple");
        alone(simple, "setBytes, simple protocol", "42601", "SELECT version FROM es_append(?, ?, ?, body => ?)", "a-1", 4, "a", new byte[] {0, 1});
        simple.close();
        polled("es_poll", "");
        polled("es_poll, binary", "&prepareThreshold=-1");
        polled("es_poll, text", "&binaryTransfer=false");
        polled("es_poll, simple protocol", "&preferQueryMode=simple");
        PreparedStatement statement = connection.prepareStatement("INSERT INTO said VALUES ('java', ?, ?, ?)");
        for (Said one : said) {
            statement.setString(1, one.way);
            statement.setInt(2, one.id);
            statement.setString(3, one.answer);
            statement.addBatch();
        }
        statement.executeBatch();
        connection.commit();
    }

    public static void main(String[] arguments) throws SQLException {
        // not prepared; prepared at once, with binary results; with text alone; the simple protocol
        Map<String, String> modes = Map.of("", "&prepareThreshold=0", ", prepared", "&prepareThreshold=-1",
            ", text", "&prepareThreshold=1&binaryTransfer=false", SIMPLE, "&preferQueryMode=simple",
            ", stringtype", "&stringtype=unspecified");
        for (Map.Entry<String, String> mode : modes.entrySet()) {
            Connection connection = connect(mode.getValue());
            for (Call call : calls(connection)) {
                askInEachWay(connection, call, mode.getKey(), mode.getKey().isEmpty() ? 1 : 2);
            }
            connection.close();
        }
        store();
    }
}
