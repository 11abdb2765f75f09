// One client of the HTTP server. Everything here runs on the server's thread, but for the functions
// of Exchange, which hand over to it.
#pragma once
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "serve/http_server.h"

namespace minke {

// A body as a string that grows with what arrives, never by what Content-Length promises, and takes
// its bytes from the server's budget; no_buffer_space when that is used up.
struct GrowingBody {
  struct value_type {
    std::string bytes;
    std::shared_ptr<BodyBudget::Share> share;
  };
  class reader {
   public:
    template <bool isRequest, class Fields>
    reader(boost::beast::http::header<isRequest, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<std::uint64_t>&, boost::beast::error_code& error) {
      error = {};
    }
    template <class Buffers>
    std::size_t put(const Buffers& buffers, boost::beast::error_code& error) {
      error = {};
      std::size_t n = 0;
      for (auto at = boost::asio::buffer_sequence_begin(buffers);
           at != boost::asio::buffer_sequence_end(buffers); ++at) {
        const boost::asio::const_buffer part(*at);
        if (!body_.share->take(part.size())) {
          error = make_error_code(boost::system::errc::no_buffer_space);
          return n;
        }
        body_.bytes.append(static_cast<const char*>(part.data()), part.size());
        n += part.size();
      }
      return n;
    }
    void finish(boost::beast::error_code& error) { error = {}; }

   private:
    value_type& body_;
  };
};

class HttpConnection;

// What connections share; outlives them.
struct HttpContext {
  const HttpSettings settings;
  const HttpHandler handler;
  const HttpErrorBody error_body;
  std::function<void(const std::shared_ptr<HttpConnection>&)> on_closed;
  // A reply may be used when the server has long been destroyed: it keeps this alive.
  std::shared_ptr<boost::asio::io_context> io;
  const std::shared_ptr<BodyBudget> bodies;
  bool draining = false;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  HttpConnection(Socket socket, HttpContext& context);

  void start();
  void refuse(int status, std::string_view message);  // instead of start()
  void drain();  // closes when no answer is being made, else after it
  void close();

 private:
  class Exchange;
  enum class State { Idle, Reading, Answering, Lingering, Closed };
  using Error = boost::system::error_code;
  using Parser = boost::beast::http::request_parser<GrowingBody>;
  using Timer = boost::asio::steady_timer;

  // Reading.
  void wait_for_request();
  void read_header();
  void on_header(Error error);
  void read_body();
  void on_request(Error error);
  void reject(Error error);
  void dispatch();
  // While the answer is made: is the client still there?
  void watch();
  void on_watched(Error error, std::size_t n);
  void probe();
  void client_gone();
  // Answering.
  void send(HttpResponse response);
  void start_stream(HttpResponse head);
  void write_stream(std::string bytes);
  void comment_when_quiet();
  void finish_stream();
  std::string head_of(const HttpResponse& response, std::string_view framing);
  void queue(std::string bytes);
  void write_next();
  void answer_sent();
  void linger();
  void discard();
  // Closes the connection when it takes longer.
  void expire_after(Timer& timer, double seconds, void (HttpConnection::*late)());
  void too_slow();

  Socket socket_;
  HttpContext& context_;
  State state_ = State::Idle;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  Timer read_deadline_, write_deadline_, comment_timer_;
  std::chrono::steady_clock::time_point last_event_ = {};
  std::size_t discarded_ = 0;

  std::deque<std::string> unsent_;
  std::size_t unsent_bytes_ = 0;
  bool writing_ = false;

  std::function<void()> gone_;
  std::uint64_t exchange_number_ = 0;  // what an earlier request's reply does has no effect
  bool first_request_ = true;
  bool reading_ = false, refused_ = false, watching_ = false, half_closed_ = false;
  bool head_only_ = false, keep_alive_ = false, chunked_ = false, http_1_0_ = false;
  bool answer_started_ = false, answer_complete_ = false;
};

}  // namespace minke
