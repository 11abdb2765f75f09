#include "parallel/optimizer_pieces.h"

#include <algorithm>

namespace minke {
namespace {

template <class Real, class Moment>
void update(const AdamW& settings, const UpdatedParts& parts, Index count) {
  adamw_update(settings, View1<const Real>(parts.gradient.view<Real>(count)),
               parts.weight.view<Real>(count), parts.m.view<Moment>(count),
               parts.v.view<Moment>(count));
}

}  // namespace

std::vector<Piece> cut_into_pieces(const std::vector<Index>& sizes) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    for (Index begin = 0; begin < sizes[i]; begin += kPiece)
      pieces.push_back({i, begin, std::min(kPiece, sizes[i] - begin)});
  return pieces;
}

ModelPieces pieces_of_model(const ModelConfig& config) {
  ModelPieces pieces;
  ModelParameters<int> names;
  visit_parameters(config, names, [&](const ParameterSpec& spec, int&) {
    if (spec.role == Role::Bias) return;
    pieces.first[spec.name] = pieces.count;
    pieces.count += (element_count(spec.shape) + kPiece - 1) / kPiece;
  });
  return pieces;
}

double sum_of_squares(const TensorPart& gradient, Index count) {
  return gradient.tensor->dtype() == DType::F64
             ? sum_of_squares(View1<const double>(gradient.view<double>(count)))
             : sum_of_squares(View1<const float>(gradient.view<float>(count)));
}

void adamw_update(const AdamW& settings, const UpdatedParts& parts, Index count) {
  const DType moment = parts.m.tensor->dtype();
  if (parts.weight.tensor->dtype() == DType::F64)
    return moment == DType::BF16  ? update<double, BF16>(settings, parts, count)
           : moment == DType::F32 ? update<double, float>(settings, parts, count)
                                  : update<double, double>(settings, parts, count);
  return moment == DType::BF16 ? update<float, BF16>(settings, parts, count)
                               : update<float, float>(settings, parts, count);
}

}  // namespace minke
