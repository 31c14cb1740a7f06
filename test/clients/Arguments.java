// Names functions by parameters of JDBC's setString, in prepared statements.
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.HashMap;
import java.util.Map;
import javax.net.SocketFactory;

public class Arguments {
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

    static final Map<String, PreparedStatement> statements = new HashMap<>();
    static Connection connection;

    static void call(String function, String sql, String... parameters) throws SQLException {
        PreparedStatement statement = statements.get(function);
        if (statement == null) {
            statements.put(function, statement = connection.prepareStatement(sql));
        }
        for (int i = 0; i < parameters.length; i++) {
            statement.setString(i + 1, parameters[i]);
        }
        try (ResultSet rows = statement.executeQuery()) {
            rows.next();
            StringBuilder line = new StringBuilder(function);
            for (int i = 1; i <= rows.getMetaData().getColumnCount(); i++) {
                if (rows.getString(i) != null && !rows.getString(i).isEmpty()) {
                    line.append(' ').append(rows.getString(i));
                }
            }
            System.out.println(line);
        }
    }

    public static void main(String[] arguments) throws SQLException {
        // prepared by the server at the first execution
        connection = DriverManager.getConnection("jdbc:postgresql:" + System.getenv("PGDATABASE") + "?prepareThreshold=1"
            + "&socketFactory=" + UnixSocketFactory.class.getName() + "&user=" + System.getenv("PGUSER"));
        for (String n : new String[] {"1", "2"}) {
            call("es_execute", "SELECT version, events FROM es_execute(?, ?, ?::jsonb, ?)", "c-1", "decide", "{\"n\": " + n + "}", "es_merge");
            call("es_state", "SELECT state::text, version FROM es_state(?, ?)", "c-1", "public.es_merge");
            call("es_history", "SELECT count(*) FROM es_history(?, ?)", "c-1", "es_last(jsonb, es_recorded_event)");
            call("es_snapshot", "SELECT es_snapshot(?, ?::text)", "c-1", "es_merge");
            call("es_receive", "SELECT es_receive(?, ?, ?, ?)", "t", "g", n, "receive");
            call("es_define_upcaster", "SELECT es_define_upcaster(?, 1, ?)", "counted", "upcast");
        }
        call("es_create_projection", "SELECT es_create_projection(?, ?)", "p", "handle");
        try {
            call("refused", "SELECT es_state(?, ?)", "c-1", "nothing");
        } catch (SQLException error) {
            System.out.println("refused " + error.getSQLState());
        }
    }
}
