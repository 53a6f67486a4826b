<?php
// A receiver of MediLab's webhooks, with nothing but PHP 8. Copy it, and write what handle does.
//
//     WEBHOOK_SECRET=... php -S 127.0.0.1:9000 receiver.php    answers calls
//     WEBHOOK_SECRET=... php receiver.php                      does the work, for cron or a service

declare(strict_types=1);

const MAX_BODY = 11 << 20; // events have at most 10 MB
define('TOLERANCE', (int) (getenv('TOLERANCE') ?: 300)); // seconds
define('GAP_WAIT', (int) (getenv('GAP_WAIT') ?: 900)); // seconds for which a missing number is waited for
const UUID = '/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/D';

$secret = getenv('WEBHOOK_SECRET') ?: throw new RuntimeException('WEBHOOK_SECRET is not set');
$key = str_starts_with($secret, 'whsec_') ? base64_decode(substr($secret, 6), true) : $secret;
if ($key === false) {
    throw new RuntimeException('WEBHOOK_SECRET is not base64 after whsec_');
}
$inbox = getenv('INBOX') ?: 'inbox';
foreach (['done', 'sequence'] as $folder) {
    if (!is_dir("$inbox/$folder") && !mkdir("$inbox/$folder", 0700, true) && !is_dir("$inbox/$folder")) {
        throw new RuntimeException("$inbox/$folder cannot be made");
    }
}

if (PHP_SAPI === 'cli') {
    work($inbox);
    exit;
}
http_response_code(receive($key, $inbox));

// Stores a delivery and answers at once; the work is done by another process.
function receive(string $key, string $inbox): int
{
    $body = file_get_contents('php://input', length: MAX_BODY + 1); // the exact bytes: what is signed
    if (strlen($body) > MAX_BODY) {
        return 413;
    }
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    if (!verify($key, $id, $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '', $body, $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '')) {
        return 401;
    }
    return store($inbox, $id, $_SERVER['HTTP_X_WEBHOOK_SEQUENCE'] ?? '', $body) ? 204 : 500; // after a 500 it is tried again
}

// Says whether one of the signatures is ours and the call is recent. During a rotation there are
// several: the old secret's and the new one's.
function verify(string $key, string $id, string $timestamp, string $body, string $signatures): bool
{
    if (!preg_match(UUID, $id) || !preg_match('/^[0-9]{1,12}$/D', $timestamp)) {
        return false;
    }
    if (abs(time() - (int) $timestamp) > TOLERANCE) {
        return false;
    }
    $want = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    foreach (explode(' ', $signatures) as $one) {
        if (hash_equals($want, $one)) { // in constant time
            return true;
        }
    }
    return false;
}

// Keeps a delivery under its id, which is the same for every attempt: a repeated one is already
// there.
function store(string $inbox, string $id, string $sequence, string $body): bool
{
    if (file_exists("$inbox/$id") || file_exists("$inbox/done/$id")) {
        return true;
    }
    if (preg_match('/^[0-9]{1,18}$/D', $sequence) && file_put_contents("$inbox/sequence/$id", $sequence) === false) {
        return false;
    }
    $temporary = tempnam($inbox, '.new-');
    $file = fopen($temporary, 'w');
    $stored = fwrite($file, $body) === strlen($body) && fsync($file) && fclose($file)
        && (@link($temporary, "$inbox/$id") || file_exists("$inbox/$id") || file_exists("$inbox/done/$id"));
    unlink($temporary);
    return $stored;
}

// Handles what is in the inbox: in the order of their numbers, if deliveries have one (the webhook's
// field sequence). What comes after a number that is missing waits for it, for a time. An exception
// ends it: it is tried again.
function work(string $inbox): void
{
    $numbers = [];
    foreach (preg_grep(UUID, scandir($inbox)) as $id) {
        $numbers[$id] = read_number("$inbox/sequence/$id");
    }
    asort($numbers);
    $expected = max(1, read_number("$inbox/next"));
    foreach ($numbers as $id => $number) {
        if ($number > $expected) {
            if (time() - filemtime("$inbox/$id") < GAP_WAIT) {
                return;
            }
            error_log("$expected to " . ($number - 1) . ' did not arrive: GET /api/v1/webhooks/{id}/feed?after=' . ($expected - 1) . ' has them');
        }
        handle($id, json_decode(file_get_contents("$inbox/$id"), true, flags: JSON_THROW_ON_ERROR));
        if ($number >= $expected) {
            $expected = $number + 1;
            file_put_contents("$inbox/next", (string) $expected);
        }
        rename("$inbox/$id", "$inbox/done/$id");
    }
}

// Returns the number in the file, or 0.
function read_number(string $path): int
{
    return is_file($path) ? (int) file_get_contents($path) : 0;
}

// Is where your work goes. A crash between it and the rename repeats it: keep the delivery's id
// beside what you write, in one transaction, where that must not happen.
function handle(string $id, array $event): void
{
    echo $id, ' ', $event['event_type'] ?? 'batch', PHP_EOL;
}
