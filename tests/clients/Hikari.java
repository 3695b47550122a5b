import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.IOException;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.Properties;
import org.postgresql.PGConnection;

class Hikari {
    static String version() throws IOException {
        Properties made = new Properties();
        made.load(HikariDataSource.class.getResourceAsStream("/META-INF/maven/com.zaxxer/HikariCP/pom.properties"));
        return made.getProperty("version");
    }

    public static void main(String[] arguments) throws Exception {
        String where = System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        HikariConfig config = new HikariConfig();
        // No password: the driver below then looks into the password file, for each session anew.
        config.setJdbcUrl("jdbc:postgresql://" + where);
        config.setUsername(System.getenv("PGUSER"));
        config.addDataSourceProperty("sslmode", "verify-full");
        config.addDataSourceProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        logsInForEver(config);
    }

    static void logsInForEver(HikariConfig config) throws Exception {
        config.setMaximumPoolSize(2);
        HikariDataSource pool = new HikariDataSource(config);
        System.out.println("version HikariCP " + version());
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
