import EventLoop
import HTTPCore

/// The page that shows what the gateway does, one file with all that it needs.
@Loop
enum LivePage {
    static let response = Response(
        status: 200,
        headers: [
            "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache",
            "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
        ], body: Bytes(PackageResources.page_html))

    /// Nothing from anywhere else, and nobody frames it.
    private static let policy =
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        + "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
