import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.sql.Connection;
import java.sql.SQLException;
import org.postgresql.PGConnection;

/** Keeps the password that it was made with. */
class HikariProxied {
    public static void main(String[] arguments) throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl("jdbc:postgresql://127.0.0.1:" + System.getenv("PROXY_PORT") + "/" + System.getenv("PGDATABASE"));
        config.setUsername(System.getenv("PGUSER"));
        config.setPassword(System.getenv("PGPASSWORD"));
        config.setMaximumPoolSize(2);
        HikariDataSource pool = new HikariDataSource(config);
        System.out.println("version HikariCP " + Hikari.version());
        while (true) {
            try (Connection connection = pool.getConnection()) {
                System.out.println("ok " + connection.unwrap(PGConnection.class).getBackendPID());
                // Not used again, so that each is a login.
                pool.evictConnection(connection);
            } catch (SQLException error) {
                System.out.println("failed: " + String.join(" ", error.toString().split("\\s+")));
            }
            Thread.sleep(500);
        }
    }
}
