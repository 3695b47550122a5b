import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import org.postgresql.PGConnection;
import org.postgresql.util.DriverInfo;

/** Sends an empty password, as tools do whose field for it was left empty. */
class PgjdbcProxied {
    public static void main(String[] arguments) throws InterruptedException {
        String url = "jdbc:postgresql://127.0.0.1:" + System.getenv("PROXY_PORT") + "/" + System.getenv("PGDATABASE");
        System.out.println("version pgjdbc " + DriverInfo.DRIVER_VERSION);
        while (true) {
            try (Connection connection = DriverManager.getConnection(url, System.getenv("PGUSER"), "")) {
                System.out.println("ok " + connection.unwrap(PGConnection.class).getBackendPID());
            } catch (SQLException error) {
                System.out.println("failed: " + String.join(" ", error.toString().split("\\s+")));
            }
            Thread.sleep(500);
        }
    }
}
