"""`POST /api/v1/subscriptions`: a form of the shop's subscribes somebody to a topic."""

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.addresses import Address, InvalidAddress, parse_address
from common.api import ApiError
from contacts.models import Topic
from events.models import Scope
from preferences.optin import AddressTaken, Answer, Application, subscribe


class ApplicationSerializer(serializers.Serializer[Any]):
    """Who wants what, and how you know."""

    email = serializers.CharField(max_length=254)
    user_id = serializers.CharField(max_length=200, required=False, default="")
    topic = serializers.SlugField(max_length=60)
    source = serializers.CharField(  # type: ignore[assignment]  # a field of our own by that name
        max_length=100, help_text="E.g. checkout form"
    )
    evidence = serializers.CharField(
        max_length=4000,
        required=False,
        default="",
        help_text="What they read and ticked, when, and where that is kept.",
    )
    locale = serializers.ChoiceField(settings.PAGE_LANGUAGES, required=False, default="")


class AnswerSerializer(serializers.Serializer[Any]):
    """`pending`: they are asked by mail; `suppressed`: they must not be mailed."""

    state = serializers.ChoiceField([answer.value for answer in Answer])
    topic = serializers.CharField()


class SubscriptionsView(APIView):
    """Subscribe a person to a topic."""

    required_scope = Scope.CONTACTS_WRITE

    @extend_schema(
        operation_id="subscribe", request=ApplicationSerializer, responses={200: AnswerSerializer}
    )
    def post(self, request: Request) -> Response:
        application = _application(request.data)
        try:
            answer = subscribe(application)
        except AddressTaken:
            message = "The address belongs to another user_id."
            raise ApiError("address_taken", message, status_code=409) from None
        return Response({"state": answer.value, "topic": application.topic.key})


def _application(document: Any) -> Application:
    serializer = ApplicationSerializer(data=document)
    if not serializer.is_valid():
        name, problems = next(iter(serializer.errors.items()))
        raise _invalid(str(name), str(problems[0]))
    data = serializer.validated_data
    topic = Topic.objects.filter(key=data["topic"]).first()
    if topic is None:
        raise _invalid("topic", "There is no such topic.")
    return Application(
        address=_address(data["email"]),
        user_id=data["user_id"].strip(),
        topic=topic,
        source=data["source"],
        evidence=data["evidence"],
        locale=data["locale"],
    )


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except InvalidAddress:
        raise _invalid("email", "This is not an e-mail address.") from None


def _invalid(name: str, message: str) -> ApiError:
    return ApiError("invalid", f"{name}: {message}", details=[{"path": name, "message": message}])
