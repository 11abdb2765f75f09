#include "train/agreed_fault.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>
#include <vector>

#include "parallel/agreement.h"

namespace minke {
namespace {

using Json = nlohmann::json;

struct Claim {
  int cause = std::numeric_limits<int>::max();  // of no fault
  int rank = 0;
  double place = 0;
};
bool before(const Claim& a, const Claim& b) {
  return std::tie(a.cause, a.place, a.rank) < std::tie(b.cause, b.place, b.rank);
}

Claim first_claim(Communicator& ranks, const std::optional<Fault>& own) {
  Claim claim{.rank = ranks.rank()};
  if (own) claim.cause = own->cause, claim.place = own->place;
  std::vector<Claim> all(static_cast<std::size_t>(ranks.size()));
  Request request =
      ranks.all_gather(std::as_bytes(std::span(&claim, 1)), std::as_writable_bytes(std::span(all)));
  wait(request);
  return *std::min_element(all.begin(), all.end(), before);
}

std::string text_of(const Fault& fault) {
  return Json{{"kind", static_cast<int>(fault.kind)},
              {"tensor", fault.tensor},
              {"layer", fault.layer ? Json(*fault.layer) : Json(nullptr)},
              {"what", fault.what},
              {"in_weights", fault.in_weights},
              {"cause", fault.cause}}
      .dump();
}

Fault fault_of(const std::string& text) {
  const Json json = Json::parse(text);
  Fault fault{.kind = static_cast<Fault::Kind>(json["kind"].get<int>()),
              .tensor = json["tensor"],
              .layer = std::nullopt,
              .what = json["what"],
              .in_weights = json["in_weights"],
              .cause = json["cause"]};
  if (!json["layer"].is_null()) fault.layer = json["layer"].get<Index>();
  return fault;
}

}  // namespace

std::optional<Fault> agreed_fault(Communicator& ranks, const std::optional<Fault>& own) {
  const Claim first = first_claim(ranks, own);
  if (first.cause == Claim{}.cause) return std::nullopt;
  const std::string text = ranks.rank() == first.rank ? text_of(*own) : "";
  return fault_of(broadcast_text(ranks, text, first.rank));
}

}  // namespace minke
