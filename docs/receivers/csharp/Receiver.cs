// A receiver of MediLab's webhooks, with nothing but .NET. Copy it, and write what Handle does.
//
//     dotnet new console -o receiver; cp Receiver.cs receiver/Program.cs; cd receiver; WEBHOOK_SECRET=... dotnet run
//     mcs Receiver.cs; WEBHOOK_SECRET=... mono Receiver.exe
//
// In ASP.NET, answer a POST with the status that Receiver.Answer returns.

using System;
using System.IO;
using System.Linq;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading;
using System.Threading.Tasks;

public class Receiver
{
    const int MaxBody = 11 << 20; // events have at most 10 MB
    static readonly long Tolerance = long.Parse(Setting("TOLERANCE", "300")); // seconds
    static readonly long GapWait = long.Parse(Setting("GAP_WAIT", "900")); // seconds for which a missing number is waited for
    static readonly Regex Uuid = new Regex(@"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z");

    readonly byte[] key;
    readonly string inbox, done, sequences;
    readonly AutoResetEvent arrived = new AutoResetEvent(false);

    public Receiver(string secret, string inbox)
    {
        key = secret.StartsWith("whsec_", StringComparison.Ordinal) ? Convert.FromBase64String(secret.Substring(6)) : Encoding.UTF8.GetBytes(secret);
        this.inbox = inbox;
        done = Directory.CreateDirectory(Path.Combine(inbox, "done")).FullName;
        sequences = Directory.CreateDirectory(Path.Combine(inbox, "sequence")).FullName;
    }

    public static void Main()
    {
        var secret = Setting("WEBHOOK_SECRET", null) ?? throw new InvalidOperationException("WEBHOOK_SECRET is not set");
        var receiver = new Receiver(secret, Setting("INBOX", "inbox"));
        var listener = new HttpListener();
        listener.Prefixes.Add($"http://127.0.0.1:{Setting("PORT", "9000")}/");
        listener.Start();
        new Thread(receiver.Work).Start();
        while (true)
        {
            var call = listener.GetContext();
            Task.Run(() => receiver.Receive(call));
        }
    }

    // Stores a delivery and answers at once; the work is done afterwards.
    void Receive(HttpListenerContext call)
    {
        try
        {
            Func<string, string> header = name => call.Request.Headers[name] ?? "";
            var body = new MemoryStream(); // the exact bytes: what is signed
            var buffer = new byte[64 << 10];
            for (int n; body.Length <= MaxBody && (n = call.Request.InputStream.Read(buffer, 0, buffer.Length)) > 0;)
            {
                body.Write(buffer, 0, n);
            }
            call.Response.StatusCode = Answer(header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"),
                header("X-Webhook-Sequence"), body.ToArray());
        }
        catch (Exception problem)
        {
            Console.Error.WriteLine(problem);
            call.Response.StatusCode = 500; // it is tried again
        }
        call.Response.Close();
    }

    // Returns the status that the call is answered with. An exception is a 500.
    public int Answer(string id, string timestamp, string signatures, string sequence, byte[] body)
    {
        if (body.Length > MaxBody)
        {
            return 413;
        }
        if (!Verify(id, timestamp, body, signatures))
        {
            return 401;
        }
        Store(id, sequence, body);
        return 204;
    }

    // Says whether one of the signatures is ours and the call is recent. During a rotation there are
    // several: the old secret's and the new one's.
    bool Verify(string id, string timestamp, byte[] body, string signatures)
    {
        if (!Uuid.IsMatch(id) || !Regex.IsMatch(timestamp, @"\A[0-9]{1,12}\z"))
        {
            return false;
        }
        if (Math.Abs(DateTimeOffset.UtcNow.ToUnixTimeSeconds() - long.Parse(timestamp)) > Tolerance)
        {
            return false;
        }
        using (var hmac = new HMACSHA256(key))
        {
            var hash = hmac.ComputeHash(Encoding.UTF8.GetBytes($"{id}.{timestamp}.").Concat(body).ToArray());
            var want = "v1," + Convert.ToBase64String(hash);
            return signatures.Split(' ').Any(one => SameText(want, one));
        }
    }

    // Compares in constant time: the time says nothing of where the two differ.
    static bool SameText(string a, string b)
    {
        var differ = a.Length ^ b.Length;
        for (var i = 0; i < a.Length && i < b.Length; i++)
        {
            differ |= a[i] ^ b[i];
        }
        return differ == 0;
    }

    // Keeps a delivery under its id, which is the same for every attempt: a repeated one is already
    // there.
    void Store(string id, string sequence, byte[] body)
    {
        var path = Path.Combine(inbox, id);
        if (File.Exists(path) || File.Exists(Path.Combine(done, id)))
        {
            return;
        }
        var temporary = Path.Combine(inbox, $".new-{Guid.NewGuid()}");
        using (var file = new FileStream(temporary, FileMode.CreateNew))
        {
            file.Write(body, 0, body.Length);
            file.Flush(flushToDisk: true);
        }
        if (Regex.IsMatch(sequence, @"\A[0-9]{1,18}\z"))
        {
            File.WriteAllText(Path.Combine(sequences, id), sequence);
        }
        try
        {
            File.Move(temporary, path);
        }
        catch (IOException) when (File.Exists(path))
        {
            File.Delete(temporary);
        }
        arrived.Set();
    }

    // Handles what is in the inbox, also what was left when the process ended.
    void Work()
    {
        while (true)
        {
            WorkThrough();
            arrived.WaitOne(TimeSpan.FromSeconds(10));
        }
    }

    // Handles deliveries in the order of their numbers, if they have one (the webhook's field sequence).
    // What comes after a number that is missing waits for it, for a time.
    void WorkThrough()
    {
        var waiting = Directory.GetFiles(inbox).Select(Path.GetFileName).Where(name => Uuid.IsMatch(name))
            .ToDictionary(id => id, id => ReadNumber(Path.Combine(sequences, id)));
        var expected = Math.Max(1, ReadNumber(Path.Combine(inbox, "next")));
        foreach (var delivery in waiting.OrderBy(d => d.Value).ThenBy(d => d.Key, StringComparer.Ordinal))
        {
            var id = delivery.Key;
            var number = delivery.Value;
            var path = Path.Combine(inbox, id);
            if (number > expected)
            {
                if (DateTime.UtcNow - File.GetLastWriteTimeUtc(path) < TimeSpan.FromSeconds(GapWait))
                {
                    return;
                }
                Console.Error.WriteLine($"{expected} to {number - 1} did not arrive: GET /api/v1/webhooks/{{id}}/feed?after={expected - 1} has them");
            }
            try
            {
                Handle(id, File.ReadAllText(path));
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
    static long ReadNumber(string path) => File.Exists(path) ? long.Parse(File.ReadAllText(path)) : 0;

    // Is where your work goes, with a JSON library of yours. A crash between it and the move repeats it:
    // keep the delivery's id beside what you write, in one transaction, where that must not happen.
    void Handle(string id, string e) => Console.WriteLine($"{id} {e.Length} characters");

    static string Setting(string name, string other)
    {
        var value = Environment.GetEnvironmentVariable(name);
        return string.IsNullOrEmpty(value) ? other : value;
    }
}
