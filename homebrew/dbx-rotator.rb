# The formula. What only a release knows stands between @s; `homebrew/release` fills it in.
class DbxRotator < Formula
  desc "Keeps a Databricks Lakebase password alive in ~/.pgpass"
  homepage "@REPOSITORY@"
  url "@URL@"
  sha256 "@SHA256@"
  license "Apache-2.0"
  head "@REPOSITORY@.git", branch: "main"

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    %w[rotator install status restart uninstall].each do |name|
      bin.install_symlink "dbx-rotator" => "databricks-oauth-#{name}"
    end

    # With --release most of it is compiled already.
    system "cargo", "run", "--release", "--locked", "--example", "pages", "--", buildpath/"pages"
    man1.install Dir["pages/*.1"]
    man5.install "pages/dbx-rotator.toml.5"
    generate_completions_from_executable(bin/"dbx-rotator", "completions")

    install_service_files
  end

  # Ours, since Homebrew's have neither Type=notify nor a watchdog. They bear the names that `dbx-rotator service`
  # gives them: were the daemon's unit dbx-rotator.service, starting it would replace what the timer runs.
  def install_service_files
    prefix.install "dist/systemd/user/dbx-rotator-daemon.service", "dist/launchd/app.dbx-rotator.agent.plist"
    inreplace prefix/"dbx-rotator-daemon.service", "/usr/bin/dbx-rotator", opt_bin/"dbx-rotator"
    inreplace prefix/"app.dbx-rotator.agent.plist", "HOMEBREW_PREFIX", HOMEBREW_PREFIX
    # launchd does not make the directory of a log.
    (var/"log").mkpath
  end

  def caveats
    <<~EOS
      Before `brew services start dbx-rotator`, write ~/.config/dbx-rotator/config.toml
      (see `man dbx-rotator.toml`): without it there is nothing to keep alive.

      For programs that keep a password, the local proxy is a service of its own:
        dbx-rotator service install --proxy
    EOS
  end

  service do
    name macos: "app.dbx-rotator.agent", linux: "dbx-rotator-daemon"
  end

  # A rotation from a workspace that is a few lines of Ruby; plain http is allowed to this machine only.
  test do
    require "json"
    require "socket"

    client_id = "6b1f0c52-8c3e-4a57-9d0e-2f4a7c91d3e8"
    now = Time.now.to_i
    claims = { sub: client_id, iat: now, exp: now + 3600 }
    token = [{ alg: "RS256", typ: "JWT" }.to_json, claims.to_json, "not verified by clients"]
            .map { |part| [part].pack("m0").tr("+/", "-_").delete("=") }.join(".")
    answer = { access_token: token, token_type: "Bearer", expires_in: 3600 }.to_json

    server = TCPServer.new("127.0.0.1", 0)
    requests = []
    workspace = Thread.new do
      loop do
        client = server.accept
        requests << client.gets.split.first(2).join(" ")
        length = client.take_while { |line| line != "\r\n" }.join[/^content-length: *(\d+)/i, 1].to_i
        client.read(length)
        status = (requests.last == "POST /oidc/v1/token") ? "200 OK" : "404 Not Found"
        client.write "HTTP/1.1 #{status}\r\nContent-Type: application/json\r\n" \
                     "Content-Length: #{answer.bytesize}\r\nConnection: close\r\n\r\n#{answer}"
        client.close
      end
    end

    secret = testpath/"client-secret"
    secret.write "not-a-secret"
    secret.chmod 0600
    options = %W[
      --workspace-url http://127.0.0.1:#{server.addr[1]}
      --client-id #{client_id}
      --client-secret-file #{secret}
      --pg-host db.example
      --pgpass-file #{testpath}/pgpass
    ]
    system bin/"dbx-rotator", "rotate", *options
    metadata = "GET /.well-known/databricks-config"
    assert_equal ["GET /oidc/.well-known/oauth-authorization-server", metadata, "POST /oidc/v1/token"], requests
    assert_equal "db.example:5432:databricks_postgres:#{client_id}:#{token}\n", (testpath/"pgpass").read
    assert_equal 0600, (testpath/"pgpass").stat.mode & 0777

    # As much as to say that it is live; under an old name as well.
    system bin/"dbx-rotator", "status", *options
    system bin/"databricks-oauth-status", *options
    assert_match version.to_s, shell_output("#{bin}/dbx-rotator --version")
  ensure
    workspace&.kill
    server&.close
  end
end
