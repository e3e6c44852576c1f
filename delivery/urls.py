from django.urls import path

from delivery.api import MessagesView, MessageView

urlpatterns = [
    path("messages", MessagesView.as_view(), name="messages"),
    path("messages/<uuid:pk>", MessageView.as_view(), name="message"),
]
