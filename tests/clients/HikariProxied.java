import com.zaxxer.hikari.HikariConfig;

/** Keeps the password that it was made with. */
class HikariProxied {
    public static void main(String[] arguments) throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl("jdbc:postgresql://127.0.0.1:" + System.getenv("PROXY_PORT") + "/" + System.getenv("PGDATABASE"));
        config.setUsername(System.getenv("PGUSER"));
        config.setPassword(System.getenv("PGPASSWORD"));
        Hikari.logsInForEver(config);
    }
}
