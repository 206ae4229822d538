import ArgumentParser
import EventLoop
import Gateway
import Glibc
import HTTPClient
import HTTPCore

/// `ollama-gateway status`: asks a gateway that runs how its backends are.
struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show how the backends of a running gateway are.")

    @Option(help: ArgumentHelp("Where the gateway listens.", valueName: "url"))
    var url = "http://localhost:8080"

    @Flag(name: .shortAndLong, help: "Go on showing it, every second, until Ctrl-C.")
    var watch = false

    func validate() throws {
        do { _ = try Backend(address) } catch { throw ValidationError("--url \(error).") }
    }

    /// Without a path, should there be one.
    private var address: String {
        let full = url.contains("://") ? url : "http://\(url)"
        let scheme = full.firstRange(of: "://").map { full[..<$0.upperBound] } ?? ""
        return String(scheme + full[scheme.endIndex...].prefix { $0 != "/" })
    }

    /// Shows it and ends the process: with status 1 if there was no answer.
    func show() {
        Task { @Loop in
            do {
                var options = HTTPClient.Options()
                options.firstByteTimeout = .seconds(5)
                let client = try HTTPClient(options: options)
                repeat {
                    let answer = await ask(client)
                    if !watch { StatusCommand.end(with: answer) }
                    // A terminal is cleared first; a file gets one after the other.
                    StatusCommand.put((isatty(STDOUT_FILENO) == 1 ? "\u{1b}[H\u{1b}[2J" : "") + answer.text)
                    try await Loop.sleep(for: .seconds(1))
                } while true
            } catch {
                StatusCommand.end(with: ("\(error)\n", false))
            }
        }
        Loop.events.run()
    }

    @Loop
    private func ask(_ client: HTTPClient) async -> (text: String, isGood: Bool) {
        guard let origin = try? Backend(address).origin else { return ("", false) }
        do {
            let answer = try await client.send(
                ClientRequest(
                    method: "GET", origin: origin, target: "/gateway/status", headers: ["Accept": "text/plain"]))
            let body = try await answer.body.collect(limit: 16 << 20)
            guard answer.status == 200 else {
                return ("\(address) answers \(answer.status): it is no ollama-gateway, or an older one\n", false)
            }
            return (body.text, true)
        } catch let error as TransportError {
            return ("no gateway answers at \(address): \(error.message)\n", false)
        } catch {
            return ("no gateway answers at \(address): \(error)\n", false)
        }
    }

    private static func put(_ text: String) {
        print(text, terminator: "")
        fflush(nil)
    }

    private static func end(with answer: (text: String, isGood: Bool)) -> Never {
        if answer.isGood { put(answer.text) } else { LogOutput.complain("ollama-gateway: \(answer.text.dropLast())") }
        Glibc.exit(answer.isGood ? 0 : 1)
    }
}
