// An HTTP/1.1 server for many slow clients: one thread, no thread and little memory a connection.
//
// Keep-alive, pipelining (answers in order, one request at a time), chunked bodies, Expect:
// 100-continue, HTTP/1.0. A request is handed over when it is complete. What is malformed is
// answered with 400 and the connection is closed; nothing is allocated by a number that a client
// sent.
//
// A client that closes its connection is noticed while its answer is being made: its end of stream
// is seen, 50 ms later an interim line (": " in an event stream, else 102 Processing) is sent, and
// a closed socket answers that with a reset. A client that has closed only its sending side gets
// its answer. An event stream that has nothing to say, because its request waits in the queue or
// its prompt is long, gets a comment (": keep-alive") now and then, so that proxies keep it open.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "serve/http_message.h"

namespace minke {

struct HttpSettings {
  std::string host = "127.0.0.1";
  int port = 8080;  // 0: a free one
  std::size_t max_connections = 4096;
  std::size_t max_header_bytes = std::size_t{16} << 10;
  std::size_t max_body_bytes = std::size_t{8} << 20;
  std::size_t max_bodies_bytes = std::size_t{256} << 20;  // of all requests that are being read
  double header_timeout_s = 10;  // from its first byte, or from the beginning of the connection
  double body_timeout_s = 60;
  double idle_timeout_s = 75;   // between requests
  double write_timeout_s = 60;  // a client that reads nothing for so long is gone
  std::size_t max_unsent_bytes = std::size_t{16} << 20;  // the same for one that reads too slowly
  double comment_after_s = 15;  // an event stream in which nothing happens gets a comment so often
  HttpHeaders headers = {};     // of every answer
};

class HttpServer {
 public:
  // Listens. IoError when the address cannot be used.
  HttpServer(const HttpSettings& settings, HttpHandler handler, HttpErrorBody error_body);
  ~HttpServer();  // closes everything

  int port() const;
  std::size_t n_connections() const;

  // Takes no more connections, closes idle ones, and waits until all answers are sent, at most
  // timeout_s (then false). From any thread but the server's.
  bool drain(double timeout_s);

 private:
  class Listener;
  std::unique_ptr<Listener> listener_;
};

}  // namespace minke
