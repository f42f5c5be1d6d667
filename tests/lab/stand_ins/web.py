"""A small web server on port 80 of one address. With a second word it is a captive portal: every page leads there."""
import http.server
import sys


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if len(sys.argv) > 2:
            self.send_response(302)
            self.send_header("Location", f"http://{sys.argv[2]}/login")
            body = b"<html>please log in</html>"
        else:
            self.send_response(200)
            body = b"ok\n"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer((sys.argv[1], 80), Page).serve_forever()
