// minke forward: logits of given tokens, and on request everything between, to compare with another
// implementation. Names and shapes are those of tests/golden/README.md.
#include <CLI/CLI.hpp>

#include <memory>

#include "base/threads.h"
#include "cli/commands.h"
#include "cli/token_file.h"
#include "io/safetensors.h"
#include "model/cached_forward.h"
#include "model/checkpoint.h"
#include "ops/permute.h"

namespace minke {
namespace {

struct ForwardOptions {
  std::string model, tokens, out;
  Index decode = 0;
  std::string attention = "absorbed", compute = "fp32";
  std::vector<std::string> collect;

  bool collects(const char* what) const {
    return std::find(collect.begin(), collect.end(), what) != collect.end();
  }
};

using Output = std::vector<std::pair<std::string, Tensor>>;

Tensor with_shape(Tensor t, Shape shape) {
  Tensor r = Tensor::uninitialized(t.dtype(), std::move(shape));
  std::memcpy(r.raw(), t.raw(), t.bytes());
  return r;
}

// Runs rows of tokens [B, S], a sequence each, with a cache each.
class Runner {
 public:
  Runner(const Model& model, AttentionForm form, const std::vector<std::vector<std::int32_t>>& rows)
      : model_(model), form_(form), rows_(rows) {
    for (std::size_t b = 0; b < rows.size(); ++b) {
      caches_.push_back(std::make_unique<SequenceCache>(model));
      caches_.back()->reserve(static_cast<Index>(rows[b].size()));
    }
  }

  Index n_sequences() const { return static_cast<Index>(rows_.size()); }

  // Columns [begin, begin + n) of every row.
  std::vector<std::int32_t> columns(Index begin, Index n) const {
    std::vector<std::int32_t> ids;
    for (const auto& row : rows_)
      ids.insert(ids.end(), row.begin() + begin, row.begin() + begin + n);
    return ids;
  }
  std::vector<Segment> segments(Index n) const {
    std::vector<Segment> all;
    for (const auto& cache : caches_) all.push_back({cache.get(), n, form_});
    return all;
  }
  Tensor forward(Index begin, Index n, Trace* trace = nullptr) {
    return cached_forward(model_, columns(begin, n), segments(n), trace);
  }
  const SequenceCache& cache(Index b) const { return *caches_[static_cast<std::size_t>(b)]; }

 private:
  const Model& model_;
  AttentionForm form_;
  const std::vector<std::vector<std::int32_t>>& rows_;
  std::vector<std::unique_ptr<SequenceCache>> caches_;
};

void put_cache(const Model& model, const Runner& run, Index layer, const std::string& prefix,
               Output& out) {
  const ModelConfig& c = model.config;
  const Index B = run.n_sequences(), S = run.cache(0).length(layer), C = c.kv_lora_rank;
  const Index R = c.qk_rope_head_dim;
  Tensor kv = Tensor::uninitialized({B, S, C}), pe = Tensor::uninitialized({B, S, R});
  for (Index b = 0; b < B; ++b) {
    const Tensor rows = read_rows(run.cache(b), layer, S);
    copy(rows.v2().columns(0, C), kv.v3()[b]);
    copy(rows.v2().columns(C, R), pe.v3()[b]);
  }
  out.emplace_back(prefix + "kv_cache", std::move(kv));
  out.emplace_back(prefix + "pe_cache", std::move(pe));
}

void put_gate(GateTrace gate, const std::string& prefix, Index B, bool scores, Output& out) {
  const Index S = gate.scores.extent(0) / B;
  if (scores)
    out.emplace_back(prefix + "scores",
                     with_shape(std::move(gate.scores), {B, S, gate.scores.extent(1)}));
  const Index K = gate.indices.extent(1);
  out.emplace_back(prefix + "indices", with_shape(std::move(gate.indices), {B, S, K}));
  out.emplace_back(prefix + "weights", with_shape(std::move(gate.weights), {B, S, K}));
}

void put_trace(const Model& model, Trace trace, const ForwardOptions& options, Index B, Index S,
               Output& out) {
  const Index D = model.config.hidden_size;
  if (options.collects("hidden")) {
    const Index n = static_cast<Index>(trace.hidden.size());
    Tensor all = Tensor::uninitialized({n, B, S, D});
    for (Index i = 0; i < n; ++i)
      copy(trace.hidden[static_cast<std::size_t>(i)].v2(),
           reshape<2>(all.flat(), {n * B * S, D}).rows(i * B * S, B * S));
    out.emplace_back("hidden", std::move(all));
    for (std::size_t i = 0; i < trace.attn_out.size(); ++i) {
      out.emplace_back(fmt::format("layers.{}.attn_out", i),
                       with_shape(std::move(trace.attn_out[i]), {B, S, D}));
      out.emplace_back(fmt::format("layers.{}.ffn_out", i),
                       with_shape(std::move(trace.ffn_out[i]), {B, S, D}));
    }
  }
  if (options.collects("gate"))
    for (GateTrace& gate : trace.gates) {
      const std::string prefix = fmt::format("layers.{}.gate.", gate.layer);
      put_gate(std::move(gate), prefix, B, true, out);
    }
}

// The first n positions of every sequence of x [B S, D].
Tensor leading(const Tensor& x, Index B, Index n) {
  const Index S = x.extent(0) / B;
  Tensor y = Tensor::uninitialized({B * n, x.extent(1)});
  for (Index b = 0; b < B; ++b) copy(x.v2().rows(b * S, n), y.v2().rows(b * n, n));
  return y;
}

void put_mtp(const Model& model, Runner& run, Tensor state, Index S, Output& out) {
  const Index B = run.n_sequences(), D = model.config.hidden_size;
  for (Index k = 0; k < static_cast<Index>(model.weights.mtp.size()) && S - 1 - k > 0; ++k) {
    const Index n = S - 1 - k;
    const Tensor h = leading(state, B, n);
    Trace trace;
    state = cached_mtp_forward(model, k, run.columns(k + 1, n), h.v2(), run.segments(n), &trace);
    const std::string prefix = fmt::format("mtp.{}.", k);
    out.emplace_back(prefix + "logits",
                     with_shape(output_logits(model, state.v2()), {B, n, model.config.vocab_size}));
    out.emplace_back(prefix + "eh_out", with_shape(std::move(trace.eh_out), {B, n, D}));
    out.emplace_back(prefix + "block_out", with_shape(std::move(trace.block_out), {B, n, D}));
    out.emplace_back(prefix + "head_norm", with_shape(state.clone(), {B, n, D}));
    for (GateTrace& gate : trace.gates) put_gate(std::move(gate), prefix + "gate.", B, false, out);
    put_cache(model, run, model.config.num_hidden_layers + k, prefix, out);
  }
}

Tensor decode_logits(const Model& model, Runner& run, Index S, Index prefill) {
  const Index B = run.n_sequences(), V = model.config.vocab_size;
  Tensor out = Tensor::uninitialized({B, S - prefill, V});
  run.forward(0, prefill);
  for (Index t = prefill; t < S; ++t) {
    const Tensor logits = output_logits(model, run.forward(t, 1).v2());
    for (Index b = 0; b < B; ++b) copy(logits.v2().rows(b, 1), out.v3()[b].rows(t - prefill, 1));
  }
  return out;
}

void run_forward(const ForwardOptions& options) {
  const AttentionForm form = parse_attention_form(options.attention);
  const Compute compute = parse_compute(options.compute);
  const bool mtp = options.collects("mtp");
  const Model model = load_model(options.model, {.compute = compute,
                                                 .absorbed = form == AttentionForm::Absorbed,
                                                 .expanded = form == AttentionForm::Expanded,
                                                 .mtp = mtp});
  const auto rows = read_token_rows(options.tokens, model.config.vocab_size);
  const Index B = static_cast<Index>(rows.size()), S = static_cast<Index>(rows.front().size());
  if (options.decode >= S)
    throw ConfigError(fmt::format("--decode is {} but the rows have {} tokens; it must be less",
                                  options.decode, S));
  Output out;
  Runner run(model, form, rows);
  Trace trace;
  Tensor state = run.forward(0, S, options.collect.empty() ? nullptr : &trace);
  out.emplace_back("logits",
                   with_shape(output_logits(model, state.v2()), {B, S, model.config.vocab_size}));
  put_trace(model, std::move(trace), options, B, S, out);
  if (options.collects("hidden"))
    out.emplace_back("final_norm", with_shape(state.clone(), {B, S, model.config.hidden_size}));
  if (options.collects("cache"))
    for (Index i = 0; i < model.config.num_hidden_layers; ++i)
      put_cache(model, run, i, fmt::format("layers.{}.", i), out);
  if (mtp) put_mtp(model, run, std::move(state), S, out);
  if (options.decode > 0) {
    Runner again(model, form, rows);
    out.emplace_back("decode.logits", decode_logits(model, again, S, options.decode));
  }

  std::vector<NamedTensorView> views;
  for (const auto& [name, tensor] : out) views.push_back(NamedTensorView::of(name, tensor));
  write_safetensors(options.out, views);
}

}  // namespace

void add_forward(CLI::App& app) {
  auto o = std::make_shared<ForwardOptions>();
  CLI::App* c = app.add_subcommand("forward", "Logits of given tokens, to compare implementations");
  c->add_option("--model", o->model, "model directory (config.json and weights)")->required();
  c->add_option("--tokens", o->tokens, "safetensors file with I64 `tokens` [B, S]")->required();
  c->add_option("--out", o->out, "safetensors file to write")->required();
  c->add_option("--decode", o->decode, "also decode one token at a time after P tokens of prefill")
      ->type_name("P")
      ->check(CLI::PositiveNumber);
  c->add_option("--attention", o->attention, "absorbed or expanded")->capture_default_str();
  c->add_option("--compute", o->compute, "fp32, bf16 or fp8")->capture_default_str();
  c->add_option("--collect", o->collect, "what else to write: hidden, gate, cache, mtp")
      ->delimiter(',')
      ->check(CLI::IsMember({"hidden", "gate", "cache", "mtp"}));
  c->callback([o] { run_forward(*o); });
}

}  // namespace minke
