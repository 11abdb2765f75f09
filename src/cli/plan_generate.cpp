// minke plan generate: tokens/s of one device that reads a prompt and writes.
#include "base/error.h"
#include "cli/plan_inputs.h"
#include "plan/one_device.h"

namespace minke {
namespace {

struct GenerateInputs : PlanInputs {
  std::string weights = "fp8";
  std::int64_t sequences = 1, context = 0, prompt = 512, piece = 2048;
  double cache_bits = 16;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weights", weights, "how matrices are stored: fp8 or bf16");
    field("sequences", sequences, "decoded together", between(1, 1 << 20));
    field("context", context, "cached tokens of each while decoding", between(0, 1 << 24));
    field("prompt", prompt, "tokens of the prompt", between(1, 1 << 24));
    field("piece", piece, "prompt tokens that go through the model together", between(1, 1 << 24));
    field("cache-bits", cache_bits, "of a cached number", between(4, 32));
  }
};

WeightBits weight_bits(const std::string& name) {
  if (name == "fp8") return {.products = 8, .others = 16};
  if (name == "bf16") return {.products = 16, .others = 16};
  throw UsageError(fmt::format("--weights is {}; expected fp8 or bf16", name));
}

struct Prediction {
  PlanModel model;
  Cluster cluster;
  double touched_bytes, decode_share, decode_tokens_per_s;
  PrefillEfficiency prefill_shares;
  double prefill_s;
};

Prediction predict(const GenerateInputs& in) {
  Prediction p;
  p.model = plan_model(in.model);
  p.cluster = cluster(in.cluster);
  const WeightBits bits = weight_bits(in.weights);
  const DecodeLoad decode = {static_cast<double>(in.sequences), static_cast<double>(in.context),
                             bits, in.cache_bits};
  p.touched_bytes = decode_bytes(p.model, decode);
  p.decode_share = decode_efficiency(p.cluster.efficiency, bits);
  p.decode_tokens_per_s = decode_tokens_per_s(p.model, p.cluster, decode, p.decode_share);
  p.prefill_shares = prefill_efficiency(p.cluster.efficiency, bits);
  p.prefill_s = prefill_seconds(p.model, p.cluster, {in.prompt, in.piece, bits}, p.prefill_shares);
  return p;
}

void print_prediction(const GenerateInputs& in, const Prediction& p) {
  const bool measured = p.cluster.efficiency.products > 0;
  fmt::print("{} on one device of {}, weights in {}\n", p.model.name, p.cluster.name, in.weights);
  fmt::print("decode   {} x 1 after {}: {:.1f} tokens/s; {} a step at {:.0f} % of {:.1f} GB/s\n",
             in.sequences, in.context, p.decode_tokens_per_s, bytes_text(p.touched_bytes),
             100 * p.decode_share, p.cluster.memory_bytes_per_s / 1e9);
  fmt::print("prefill  {} tokens: {:.3f} s, {:.1f} tokens/s\n", in.prompt, p.prefill_s,
             static_cast<double>(in.prompt) / p.prefill_s);
  if (!measured)
    fmt::print(
        "efficiencies are taken as 1, so these are bounds; `minke plan calibrate` measures\n");
}

void generate_plan(const GenerateInputs& in) {
  const Prediction p = predict(in);
  if (!in.json) return print_prediction(in, p);
  print_json({{"model", p.model.name},
              {"cluster", p.cluster.name},
              {"weights", in.weights},
              {"sequences", in.sequences},
              {"context", in.context},
              {"decode_bytes", p.touched_bytes},
              {"decode_share", p.decode_share},
              {"decode_tokens_per_s", p.decode_tokens_per_s},
              {"prompt", in.prompt},
              {"prefill_s", p.prefill_s},
              {"prefill_tokens_per_s", static_cast<double>(in.prompt) / p.prefill_s}});
}

}  // namespace

void add_plan_generate(CLI::App& plan) {
  const auto in = std::make_shared<GenerateInputs>();
  CLI::App* command = plan.add_subcommand(
      "generate", "tokens/s of one device that reads a prompt and writes, from measured shares");
  in->model = "moonlight-9l";
  in->cluster = "cpux1";
  add_plan_flags(*command, *in, PlanFlags::Cluster);
  add_flags(*command, OptionList(*in));
  command->callback([in] { generate_plan(*in); });
}

}  // namespace minke
