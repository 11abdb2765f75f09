#include "parallel/communicator.h"

namespace minke {

void wait(Request& request) {
  if (request) request->wait();
}

void wait_all(std::span<Request> requests) {
  for (Request& request : requests) wait(request);
}

}  // namespace minke
