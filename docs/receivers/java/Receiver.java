// A receiver of MediLab's webhooks, with nothing but Java 17. Copy it, and write what handle does.
//
//     WEBHOOK_SECRET=... java Receiver.java

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.Base64;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.Executors;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Receiver {
    static final int MAX_BODY = 11 << 20; // events have at most 10 MB
    static final long TOLERANCE = Long.parseLong(environment("TOLERANCE", "300")); // seconds
    static final long GAP_WAIT = Long.parseLong(environment("GAP_WAIT", "900")); // seconds for which a missing number is waited for
    static final Pattern UUID = Pattern.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}");

    final byte[] key;
    final Path inbox;
    final Path done;
    final Path sequences;
    final Semaphore arrived = new Semaphore(0);

    Receiver(String secret, Path inbox) throws IOException {
        key = secret.startsWith("whsec_") ? Base64.getDecoder().decode(secret.substring(6)) : secret.getBytes(StandardCharsets.UTF_8);
        this.inbox = inbox;
        done = Files.createDirectories(inbox.resolve("done"));
        sequences = Files.createDirectories(inbox.resolve("sequence"));
    }

    public static void main(String[] args) throws Exception {
        String secret = System.getenv("WEBHOOK_SECRET");
        if (secret == null || secret.isEmpty()) {
            throw new IllegalStateException("WEBHOOK_SECRET is not set");
        }
        var receiver = new Receiver(secret, Path.of(environment("INBOX", "inbox")));
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(environment("PORT", "9000"))), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", receiver::receive);
        server.start();
        receiver.work();
    }

    /** Stores a delivery and answers at once; the work is done afterwards. */
    void receive(HttpExchange exchange) throws IOException {
        try (exchange) {
            exchange.sendResponseHeaders(answer(exchange), -1);
        }
    }

    int answer(HttpExchange exchange) {
        try {
            byte[] body = exchange.getRequestBody().readNBytes(MAX_BODY + 1); // the exact bytes: what is signed
            if (body.length > MAX_BODY) {
                return 413;
            }
            String id = header(exchange, "webhook-id");
            if (!verify(id, header(exchange, "webhook-timestamp"), body, header(exchange, "webhook-signature"))) {
                return 401;
            }
            store(id, header(exchange, "X-Webhook-Sequence"), body);
            return 204;
        } catch (IOException | GeneralSecurityException problem) {
            problem.printStackTrace();
            return 500; // it is tried again
        }
    }

    /**
     * Says whether one of the signatures is ours and the call is recent. During a rotation there are several: the
     * old secret's and the new one's.
     */
    boolean verify(String id, String timestamp, byte[] body, String signatures) throws GeneralSecurityException {
        if (!UUID.matcher(id).matches() || !timestamp.matches("[0-9]{1,12}")) {
            return false;
        }
        if (Math.abs(System.currentTimeMillis() / 1000 - Long.parseLong(timestamp)) > TOLERANCE) {
            return false;
        }
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        mac.update((id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8));
        byte[] want = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(StandardCharsets.UTF_8);
        return Arrays.stream(signatures.split(" "))
                .anyMatch(one -> MessageDigest.isEqual(want, one.getBytes(StandardCharsets.UTF_8))); // in constant time
    }

    /** Keeps a delivery under its id, which is the same for every attempt: a repeated one is already there. */
    void store(String id, String sequence, byte[] body) throws IOException {
        if (Files.exists(inbox.resolve(id)) || Files.exists(done.resolve(id))) {
            return;
        }
        Path temporary = Files.createTempFile(inbox, ".new-", null);
        try (var file = FileChannel.open(temporary, StandardOpenOption.WRITE)) {
            var bytes = ByteBuffer.wrap(body);
            while (bytes.hasRemaining()) {
                file.write(bytes);
            }
            file.force(true);
            if (sequence.matches("[0-9]{1,18}")) {
                Files.writeString(sequences.resolve(id), sequence);
            }
            Files.createLink(inbox.resolve(id), temporary);
        } catch (FileAlreadyExistsException repeated) {
            return;
        } finally {
            Files.delete(temporary);
        }
        arrived.release();
    }

    /** Handles what is in the inbox, also what was left when the process ended. */
    void work() throws IOException, InterruptedException {
        while (true) {
            arrived.drainPermits();
            workThrough();
            arrived.tryAcquire(10, TimeUnit.SECONDS);
        }
    }

    /**
     * Handles deliveries in the order of their numbers, if they have one (the webhook's field sequence). What comes
     * after a number that is missing waits for it, for a time.
     */
    void workThrough() throws IOException {
        var waiting = new TreeMap<String, Path>(); // by number and id
        try (var paths = Files.list(inbox)) {
            for (Path path : paths.filter(p -> UUID.matcher(p.getFileName().toString()).matches()).toList()) {
                waiting.put("%018d %s".formatted(readNumber(sequences.resolve(path.getFileName())), path.getFileName()), path);
            }
        }
        long expected = Math.max(1, readNumber(inbox.resolve("next")));
        for (var entry : waiting.entrySet()) {
            Path path = entry.getValue();
            long number = Long.parseLong(entry.getKey().substring(0, 18));
            if (number > expected) {
                if (System.currentTimeMillis() - Files.getLastModifiedTime(path).toMillis() < GAP_WAIT * 1000) {
                    return;
                }
                System.err.printf("%d to %d did not arrive: GET /api/v1/webhooks/{id}/feed?after=%d has them%n", expected, number - 1, expected - 1);
            }
            try {
                handle(path.getFileName().toString(), Files.readString(path));
                if (number >= expected) {
                    expected = number + 1;
                    Files.writeString(inbox.resolve("next"), Long.toString(expected));
                }
                Files.move(path, done.resolve(path.getFileName()));
            } catch (Exception problem) {
                problem.printStackTrace(); // it is tried again
                if (number > 0) {
                    return; // those after it wait
                }
            }
        }
    }

    /** Returns the number in the file, or 0. */
    static long readNumber(Path path) throws IOException {
        return Files.exists(path) ? Long.parseLong(Files.readString(path)) : 0;
    }

    /**
     * Is where your work goes, with a JSON library of yours. A crash between it and the move repeats it: keep the
     * delivery's id beside what you write, in one transaction, where that must not happen.
     */
    void handle(String id, String event) {
        System.out.println(id + " " + event.length() + " characters");
    }

    static String header(HttpExchange exchange, String name) {
        return Optional.ofNullable(exchange.getRequestHeaders().getFirst(name)).orElse("");
    }

    static String environment(String name, String other) {
        return Optional.ofNullable(System.getenv(name)).filter(value -> !value.isEmpty()).orElse(other);
    }
}
