import java.sql.DriverManager;
import java.sql.SQLException;

public class Account {
    public static void main(String[] arguments) throws SQLException {
        var db = DriverManager.getConnection(System.getenv("JDBC_URL"));
// README
        while (events.next()) System.out.println("['" + events.getString("type") + "']");
    }
}
