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
var tolerance = TimeSpan.FromMinutes(5);
var uuid = new Regex(@"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z");

var secret = Environment.GetEnvironmentVariable("WEBHOOK_SECRET") ?? throw new InvalidOperationException("WEBHOOK_SECRET is not set");
var key = secret.StartsWith("whsec_", StringComparison.Ordinal) ? Convert.FromBase64String(secret[6..]) : Encoding.UTF8.GetBytes(secret);
var inbox = Environment.GetEnvironmentVariable("INBOX") ?? "inbox";
var done = Path.Combine(inbox, "done");
Directory.CreateDirectory(done);
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
    await Store(id, body); // an exception is a 500, and the call is tried again
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
async Task Store(string id, byte[] body)
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
        foreach (var path in Directory.GetFiles(inbox).Where(path => uuid.IsMatch(Path.GetFileName(path))).Order())
        {
            try
            {
                Handle(Path.GetFileName(path), JsonDocument.Parse(await File.ReadAllBytesAsync(path)).RootElement);
                File.Move(path, Path.Combine(done, Path.GetFileName(path)));
            }
            catch (Exception problem)
            {
                Console.Error.WriteLine(problem); // it is tried again
            }
        }
        await Task.WhenAny(arrived.Reader.WaitToReadAsync().AsTask(), Task.Delay(TimeSpan.FromSeconds(10)));
        arrived.Reader.TryRead(out _);
    }
}

// Is where your work goes. A crash between it and the move repeats it: keep the delivery's id
// beside what you write, in one transaction, where that must not happen.
void Handle(string id, JsonElement e) =>
    Console.WriteLine($"{id} {(e.TryGetProperty("event_type", out var type) ? type.GetString() : "batch")}");
