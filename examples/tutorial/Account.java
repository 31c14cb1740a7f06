// Bank accounts in an event store, with the JDBC driver: doc/tutorial/java.md.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executors;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.postgresql.PGConnection;
import org.postgresql.util.PSQLException;

public class Account {
    record Appended(long version, long position) {}

    record Event(String stream, long version, UUID id, String type, long amount) {}

    static Connection connect() throws SQLException {
        return DriverManager.getConnection(System.getenv("JDBC_URL"));
    }

    /** Appends one event. The expected version is a number, or "none", "exists" or "any". */
    static Appended append(Connection db, String stream, Object expected, String type, String data, UUID id)
            throws SQLException {
        try (var statement = db.prepareStatement(
                "SELECT version, position FROM es_append(?, ?, ?, ?::jsonb, id => ?)")) {
            statement.setString(1, stream);
            statement.setObject(2, expected);
            statement.setString(3, type);
            statement.setString(4, data);
            statement.setObject(5, id);
            try (var row = statement.executeQuery()) {
                row.next();
                return new Appended(row.getLong("version"), row.getLong("position"));
            }
        }
    }

    static boolean isConflict(SQLException error) {
        return "ES001".equals(error.getSQLState());
    }

    static void openAccount(Connection db) throws SQLException {
        var id = UUID.randomUUID();
        var ann = "{\"owner\": \"Ann\"}";
        System.out.println("opened, version " + append(db, "account-1", "none", "opened", ann, id).version());
        System.out.println("opened again, version " + append(db, "account-1", "none", "opened", ann, id).version());
        append(db, "account-1", 1, "deposited", "{\"amount\": 100}", UUID.randomUUID());
        try {
            append(db, "account-1", 1, "deposited", "{\"amount\": 100}", UUID.randomUUID());
        } catch (PSQLException error) {
            if (!isConflict(error)) throw error;
            System.out.println("conflict: " + error.getServerErrorMessage().getMessage());
        }
    }

    static List<Event> load(Connection db, String stream) throws SQLException {
        var events = new ArrayList<Event>();
        try (var statement = db.prepareStatement(
                "SELECT stream, version, id, type, (data->>'amount')::bigint AS amount FROM es_load(?)")) {
            statement.setString(1, stream);
            try (var row = statement.executeQuery()) {
                while (row.next()) events.add(event(row));
            }
        }
        return events;
    }

    static Event event(ResultSet row) throws SQLException {
        return new Event(row.getString("stream"), row.getLong("version"), row.getObject("id", UUID.class),
                row.getString("type"), row.getLong("amount"));
    }

    static long fold(List<Event> events) {
        return events.stream().mapToLong(event -> switch (event.type()) {
            case "deposited" -> event.amount();
            case "withdrawn" -> -event.amount();
            default -> 0;
        }).sum();
    }

    static class Refused extends Exception {
        Refused(long left) {
            super("only " + left + " left");
        }
    }

    /** Loads, decides and appends, again if another writer was faster. Returns the version. */
    static long withdraw(Connection db, String stream, long amount, UUID commandId) throws SQLException, Refused {
        for (int attempt = 0; attempt < 10; attempt++) {
            var events = load(db, stream);
            var done = events.stream().filter(event -> event.id().equals(commandId)).findAny();
            if (done.isPresent()) return done.get().version(); // by an earlier attempt, whose answer was lost
            if (fold(events) < amount) throw new Refused(fold(events));
            try {
                var data = "{\"amount\": " + amount + "}";
                return append(db, stream, events.size(), "withdrawn", data, commandId).version();
            } catch (SQLException error) {
                if (!isConflict(error)) throw error;
            }
        }
        throw new IllegalStateException("too many writers of " + stream);
    }

    static String withdrawAtOnce() throws SQLException {
        try (var db = connect()) {
            withdraw(db, "account-1", 30, UUID.randomUUID());
            return "done";
        } catch (Refused refusal) {
            return refusal.getMessage();
        }
    }

    /** Runs the tasks side by side, each in a thread. */
    static <T> List<T> together(List<Callable<T>> tasks) throws Exception {
        var threads = Executors.newFixedThreadPool(tasks.size());
        try {
            var results = new ArrayList<T>();
            for (var future : threads.invokeAll(tasks)) results.add(future.get());
            return results;
        } finally {
            threads.shutdown();
        }
    }

    static void withdrawOften(Connection db) throws Exception {
        var answers = together(Stream.generate(() -> (Callable<String>) Account::withdrawAtOnce).limit(4).toList());
        System.out.println("four withdrawals of 30: " + answers.stream().sorted().collect(Collectors.joining(", ")));
        var commandId = UUID.randomUUID();
        System.out.println("withdrawn, version " + withdraw(db, "account-1", 5, commandId));
        System.out.println("withdrawn again, version " + withdraw(db, "account-1", 5, commandId));
        var events = load(db, "account-1");
        System.out.println("balance " + fold(events) + " at version " + events.size());
    }

    static void readOwnWrite(Connection db) throws SQLException {
        var appended = append(db, "account-1", 6, "deposited", "{\"amount\": 20}", UUID.randomUUID());
        try (var statement = db.prepareStatement("SELECT es_wait('balance', ?)")) {
            statement.setLong(1, appended.position());
            statement.execute();
        }
        try (var statement = db.createStatement();
                var row = statement.executeQuery("SELECT amount FROM balance WHERE account = 'account-1'")) {
            row.next();
            System.out.println("read model: " + row.getLong("amount"));
        }
    }

    /** Handles one delivery. Returns false if there is none. */
    static boolean consume(Connection db, String name, ConcurrentLinkedQueue<Event> handled) throws SQLException {
        Long token = null;
        try (var poll = db.prepareStatement("SELECT *, (data->>'amount')::bigint AS amount "
                + "FROM es_poll('mails', consumer => ?, wait => '1s')")) {
            poll.setString(1, name);
            try (var row = poll.executeQuery()) {
                while (row.next()) {
                    token = row.getLong("token");
                    handled.add(event(row)); // here the mail would be sent
                }
            }
        }
        if (token == null) return false;
        try (var ack = db.prepareStatement("SELECT es_ack('mails', ?)")) {
            ack.setLong(1, token);
            ack.execute();
        }
        return true;
    }

    static void consumeSideBySide(Connection db) throws Exception {
        var events = """
            [{"type": "opened", "data": {"owner": "Bob"}},
             {"type": "deposited", "data": {"amount": 7}}]""";
        try (var batch = db.prepareStatement("SELECT es_append_batch(?, 'none', ?::jsonb)")) {
            for (var stream : List.of("account-2", "account-3", "account-4")) {
                batch.setString(1, stream);
                batch.setString(2, events);
                batch.execute();
            }
        }
        var handled = new ConcurrentLinkedQueue<Event>();
        together(Stream.of("mails-1", "mails-2").map(name -> (Callable<Void>) () -> {
            try (var own = connect()) {
                while (consume(own, name, handled)) {}
            }
            return null;
        }).toList());
        handled.stream().collect(Collectors.groupingBy(Event::stream, TreeMap::new,
                Collectors.mapping(event -> "" + event.version(), Collectors.joining(" "))))
            .forEach((stream, versions) -> System.out.println(stream + ": " + versions));
    }

    static void listen(Connection db) throws SQLException {
        try (var listener = connect(); var statement = listener.createStatement();
                var read = db.prepareStatement("SELECT stream, type FROM es_read_category('account', ?)")) {
            statement.execute("LISTEN \"es_events:account\"");
            try (var row = db.createStatement().executeQuery("SELECT es_horizon()")) {
                row.next();
                read.setLong(1, row.getLong(1));
            }
            append(db, "account-4", 2, "withdrawn", "{\"amount\": 7}", UUID.randomUUID());
            while (true) {
                listener.unwrap(PGConnection.class).getNotifications(10_000); // in milliseconds
                try (var row = read.executeQuery()) {
                    if (row.next()) {
                        System.out.println("woken: " + row.getString("stream") + " " + row.getString("type"));
                        return;
                    }
                }
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        try (var db = connect()) {
            openAccount(db);
            withdrawOften(db);
            readOwnWrite(db);
            consumeSideBySide(db);
            listen(db);
        }
    }
}
