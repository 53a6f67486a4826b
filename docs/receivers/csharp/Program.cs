// A receiver of MediLab's webhooks, with ASP.NET 8. Copy it, and write what Handle does.
//
//     dotnet new web -o receiver; cp Program.cs receiver/; cd receiver
//     WEBHOOK_SECRET=... dotnet run --urls http://127.0.0.1:9000

using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using System.Threading.Channels;

const int maxBody = 11 << 20; // events have at most 10 MB
var tolerance = TimeSpan.FromSeconds(int.Parse(Environment.GetEnvironmentVariable("TOLERANCE") ?? "300"));
var gapWait = TimeSpan.FromSeconds(int.Parse(Environment.GetEnvironmentVariable("GAP_WAIT") ?? "900")); // for a missing number
var uuid = new Regex(@"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z");

var secret = Environment.GetEnvironmentVariable("WEBHOOK_SECRET") ?? throw new InvalidOperationException("WEBHOOK_SECRET is not set");
var key = secret.StartsWith("whsec_", StringComparison.Ordinal) ? Convert.FromBase64String(secret[6..]) : Encoding.UTF8.GetBytes(secret);
var inbox = Environment.GetEnvironmentVariable("INBOX") ?? "inbox";
var done = Path.Combine(inbox, "done");
Directory.CreateDirectory(done);
var sequences = Path.Combine(inbox, "sequence");
Directory.CreateDirectory(sequences);
var arrived = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

var builder = WebApplication.CreateBuilder(args);
builder.WebHost.ConfigureKestrel(options => options.Limits.MaxRequestBodySize = maxBody);
var app = builder.Build();

// Stores a delivery and answers at once; the work is done afterwards.
app.MapPost("/{**path}", async (HttpRequest request) =>
{
    using var buffer = new MemoryStream();
    await request.Body.CopyToAsync(buffer);
    var body = buffer.ToArray(); // the exact bytes: what is signed
    string id = request.Headers["webhook-id"].ToString();
    if (!Verify(id, request.Headers["webhook-timestamp"].ToString(), body, request.Headers["webhook-signature"].ToString()))
    {
        return Results.Unauthorized();
    }
    await Store(id, request.Headers["X-Webhook-Sequence"].ToString(), body); // an exception is a 500, and the call is tried again
    return Results.NoContent();
});

var work = Task.Run(Work);
await app.RunAsync();

// Says whether one of the signatures is ours and the call is recent. During a rotation there are
// several: the old secret's and the new one's.
bool Verify(string id, string timestamp, byte[] body, string signatures)
{
    if (!uuid.IsMatch(id) || timestamp.Length > 12 || !timestamp.All(char.IsAsciiDigit) || !long.TryParse(timestamp, out var seconds))
    {
        return false;
    }
    if ((DateTimeOffset.UtcNow - DateTimeOffset.FromUnixTimeSeconds(seconds)).Duration() > tolerance)
    {
        return false;
    }
    var signed = Encoding.UTF8.GetBytes($"{id}.{timestamp}.").Concat(body).ToArray();
    var want = Encoding.UTF8.GetBytes("v1," + Convert.ToBase64String(HMACSHA256.HashData(key, signed)));
    return signatures.Split(' ').Any(one => CryptographicOperations.FixedTimeEquals(want, Encoding.UTF8.GetBytes(one)));
}

// Keeps a delivery under its id, which is the same for every attempt: a repeated one is already
// there.
async Task Store(string id, string sequence, byte[] body)
{
    var path = Path.Combine(inbox, id);
    if (File.Exists(path) || File.Exists(Path.Combine(done, id)))
    {
        return;
    }
    var temporary = Path.Combine(inbox, $".new-{Guid.NewGuid()}");
    await using (var file = new FileStream(temporary, FileMode.CreateNew))
    {
        await file.WriteAsync(body);
        file.Flush(flushToDisk: true);
    }
    if (Regex.IsMatch(sequence, @"\A[0-9]{1,18}\z"))
    {
        File.WriteAllText(Path.Combine(sequences, id), sequence);
    }
    try
    {
        File.Move(temporary, path, overwrite: false);
    }
    catch (IOException) when (File.Exists(path))
    {
        File.Delete(temporary);
    }
    arrived.Writer.TryWrite(true);
}

// Handles what is in the inbox, also what was left when the process ended.
async Task Work()
{
    while (true)
    {
        await WorkThrough();
        await Task.WhenAny(arrived.Reader.WaitToReadAsync().AsTask(), Task.Delay(TimeSpan.FromSeconds(10)));
        arrived.Reader.TryRead(out _);
    }
}

// Handles deliveries in the order of their numbers, if they have one (the webhook's field sequence).
// What comes after a number that is missing waits for it, for a time.
async Task WorkThrough()
{
    var waiting = Directory.GetFiles(inbox).Select(Path.GetFileName).OfType<string>().Where(name => uuid.IsMatch(name))
        .Select(id => (Number: ReadNumber(Path.Combine(sequences, id)), Id: id)).Order().ToList();
    var expected = Math.Max(1, ReadNumber(Path.Combine(inbox, "next")));
    foreach (var (number, id) in waiting)
    {
        var path = Path.Combine(inbox, id);
        if (number > expected)
        {
            if (DateTime.UtcNow - File.GetLastWriteTimeUtc(path) < gapWait)
            {
                return;
            }
            Console.Error.WriteLine($"{expected} to {number - 1} did not arrive: GET /api/v1/webhooks/{{id}}/feed?after={expected - 1} has them");
        }
        try
        {
            Handle(id, JsonDocument.Parse(await File.ReadAllBytesAsync(path)).RootElement);
            if (number >= expected)
            {
                expected = number + 1;
                File.WriteAllText(Path.Combine(inbox, "next"), expected.ToString());
            }
            File.Move(path, Path.Combine(done, id));
        }
        catch (Exception problem)
        {
            Console.Error.WriteLine(problem); // it is tried again
            if (number > 0)
            {
                return; // those after it wait
            }
        }
    }
}

// Returns the number in the file, or 0.
long ReadNumber(string path) => File.Exists(path) ? long.Parse(File.ReadAllText(path)) : 0;

// Is where your work goes. A crash between it and the move repeats it: keep the delivery's id
// beside what you write, in one transaction, where that must not happen.
void Handle(string id, JsonElement e) =>
    Console.WriteLine($"{id} {(e.TryGetProperty("event_type", out var type) ? type.GetString() : "batch")}");
