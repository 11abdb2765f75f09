// One HTTP exchange as the rest of the server sees it: no sockets, no library.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/body_budget.h"

namespace minke {

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // without the query, not decoded
  std::string body;
  // Of the header; empty when absent.
  std::string authorization, origin, if_none_match;
  std::shared_ptr<BodyBudget::Share> share;  // of the server's memory for bodies, while this lives
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  HttpHeaders headers = {};  // besides Content-Type, Content-Length, Date, Connection
};

// "Not Found"
std::string_view reason_phrase(int status);

// Where an answer goes. Every function may be called from any thread and returns at once; after the
// client has gone they do nothing. Either send(), or start_stream(), write()... and finish().
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  virtual void send(HttpResponse response) = 0;
  // `head` without a body: Server-Sent Events of unknown length follow.
  virtual void start_stream(HttpResponse head) = 0;
  virtual void write(std::string bytes) = 0;
  virtual void finish() = 0;
  // `gone` is called once, from the server's thread, if the client leaves before the answer is
  // complete; at once if it has left already.
  virtual void on_gone(std::function<void()> gone) = 0;
};

// Called from the server's thread, so it must not block. A reply that is dropped without an answer
// closes the connection.
using HttpHandler = std::function<void(HttpRequest request, std::shared_ptr<HttpReply> reply)>;
// The answer to bytes that are no request (400), too large (413, 431), too slow (408), or more than
// the server takes (503).
using HttpErrorBody = std::function<HttpResponse(int status, std::string_view message)>;

}  // namespace minke
