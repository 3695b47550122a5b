import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.util.DriverInfo;

class Pgjdbc {
    public static void main(String[] arguments) throws InterruptedException {
        String where = System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        Properties properties = new Properties();
        // No password, not even an empty one: the driver then looks into the password file.
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("sslmode", "verify-full");
        properties.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        System.out.println("version pgjdbc " + DriverInfo.DRIVER_VERSION);
        while (true) {
            try (Connection connection = DriverManager.getConnection("jdbc:postgresql://" + where, properties)) {
                System.out.println("ok " + connection.unwrap(PGConnection.class).getBackendPID());
            } catch (SQLException error) {
                System.out.println("failed: " + String.join(" ", error.toString().split("\\s+")));
            }
            Thread.sleep(500);
        }
    }
}
